"""GRU layers of several nets, step by step together: products of stacked matrices, and a backward pass in one go.

On CPUs most of a small GRU's time is the overhead of each step's operations, forward and backward, which K nets share
here. What a step needs of memory is small, and is done with while it is in cache: of the window only the gates are
kept for the backward pass.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def forward(
    x: Float[Tensor, "K B C D"],
    w_x: Float[Tensor, "K 3*D D"],
    w_h: Float[Tensor, "K 3*D D"],
    b_x: Float[Tensor, "K 3*D"],
    b_h: Float[Tensor, "K 3*D"],
    keep: bool,
) -> tuple[Float[Tensor, "K B C D"], Float[Tensor, "kept K B 4*D"]]:
    """The states of K nets, from zero, and what the backward pass needs.

    With r = sigma(x_r + h_r), z = sigma(x_z + h_z), n = tanh(x_n + r h_n) and h' = (1 - z) n + z h; tanh(x) as
    2 sigma(2 x) - 1, which on CPUs costs a third and differs by rounding.

    Args:
        x: inputs `[K, B, C, D]`.
        w_x: matrices `[K, 3 D, D]` of the inputs, those of r, z and n above each other.
        w_h: of the states.
        b_x: biases `[K, 3 D]`.
        b_h: of the states.
        keep: whether there is to be a backward pass.

    Returns:
        States `[K, B, C, D]`; and r, z, n and 2 h_n of each step, `[C, K, B, 4 D]`, nothing if not to be kept.
    """
    K, B, C, D = x.shape
    states, kept = (
        torch.empty_like(x, memory_format=torch.contiguous_format),
        x.new_empty(C if keep else 0, K, B, 4 * D),
    )
    now, state = x.new_empty(K, B, 4 * D), x.new_zeros(K, B, D)
    twice = torch.tensor([1.0, 1.0, 2.0], dtype=x.dtype, device=x.device).repeat_interleave(D)
    w_x, w_h, b_x, b_h = w_x.mT * twice, w_h.mT * twice, (b_x * twice).unsqueeze(1), (b_h * twice).unsqueeze(1)
    for t in range(C):
        gates, n, own = (kept[t] if keep else now).split((2 * D, D, D), -1)
        (x_gates, x_n), (h_gates, h_n) = (
            torch.baddbmm(b, of, w).split((2 * D, D), -1) for b, of, w in ((b_x, x[:, :, t], w_x), (b_h, state, w_h))
        )
        torch.add(x_gates, h_gates, out=gates).sigmoid_()
        own.copy_(h_n)
        r, z = gates.chunk(2, -1)
        torch.addcmul(x_n, r, h_n, out=n).sigmoid_().mul_(2).sub_(1)
        state = torch.lerp(n, state, z)
        states[:, :, t] = state
    return states, kept


def backward(
    grad: Float[Tensor, "K B C D"],
    states: Float[Tensor, "K B C D"],
    kept: Float[Tensor, "C K B 4*D"],
    x: Float[Tensor, "K B C D"],
    w_x: Float[Tensor, "K 3*D D"],
    w_h: Float[Tensor, "K 3*D D"],
) -> tuple[
    Float[Tensor, "K B C D"],
    Float[Tensor, "K 3*D D"],
    Float[Tensor, "K 3*D D"],
    Float[Tensor, "K 3*D"],
    Float[Tensor, "K 3*D"],
]:
    """The gradients of inputs, matrices and biases."""
    K, B, C, D = x.shape
    of_x, of_w_x, of_w_h = torch.empty_like(states), torch.zeros_like(w_x), torch.zeros_like(w_h)
    of_b = x.new_zeros(K, 4 * D)
    # A step's sums in the order h_n, r, z, x_n: what comes of states is then in one piece, and what of inputs too.
    sums, carry = x.new_empty(K, B, 4 * D), x.new_zeros(K, B, D)
    to_h_n, to_r, to_z, to_n = sums.chunk(4, -1)
    of_states, of_inputs = sums[..., : 3 * D], sums[..., D:]
    turned = w_h.roll(D, 1)
    for t in range(C - 1, -1, -1):
        r, z, n, twice_h_n = kept[t].chunk(4, -1)
        before = states[:, :, t - 1] if t > 0 else torch.zeros_like(carry)
        at = grad[:, :, t] + carry
        through = at * z
        torch.mul(at - through, 1 - n * n, out=to_n)
        torch.mul(to_n, r, out=to_h_n)
        torch.mul(to_h_n * twice_h_n, 0.5 - 0.5 * r, out=to_r)
        torch.mul(through * (before - n), 1 - z, out=to_z)
        carry = torch.baddbmm(through, of_states, turned)
        of_x[:, :, t] = of_inputs @ w_x
        of_w_x.baddbmm_(of_inputs.mT, x[:, :, t])
        of_w_h.baddbmm_(of_states.mT, before)
        of_b += sums.sum(1)
    of_b_h, of_b_x = of_b[:, : 3 * D].roll(-D, 1), of_b[:, D:].contiguous()
    return of_x, of_w_x, of_w_h.roll(-D, 1), of_b_x, of_b_h
