"""First-order linear recursions along time, in blocks: some ninety steps for two thousand sessions.

s_t = u_t + b s_{t-1} is linear in its start, so that J blocks of L sessions run side by side from zero, their ends are
carried on one after the other, and b^i times the carry is added inside: L + J short steps instead of L J. Conditional
variances, their derivatives, and the adjoint of either are such recursions.

Series are folded `[L, J, N]`: session t = j L + i of asset n lies at `[i, j, n]`, so that each step of all blocks is
contiguous in memory. Elementwise work and sums over time don't mind the order.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor


def fold(series: Float64[Tensor, "T N"]) -> Float64[Tensor, "L J N"]:
    """Series in blocks, with zeros after the last session where the blocks need them."""
    T, N = series.shape
    L = 8 * max(1, int(math.sqrt(T) / 8))  # a multiple of 8, so that halves of halves of blocks are of one length
    J = max(1, math.ceil(T / L))
    padded = torch.nn.functional.pad(series, (0, 0, 0, L * J - T))
    return padded.view(J, L, N).transpose(0, 1).contiguous()


def unfold(folded: Float64[Tensor, "L J N"], T: int) -> Float64[Tensor, "T N"]:
    """The inverse of `fold`, for series of T sessions."""
    return folded.transpose(0, 1).flatten(0, 1)[:T]


def scan(
    inputs: Float64[Tensor, "L J N"], decay: Float64[Tensor, " N"], first: Float64[Tensor, " N"]
) -> Float64[Tensor, "M J N"]:
    """s_0 = first and s_{t+1} = inputs_t + decay s_t.

    Returns:
        s in `M = L + 1` places a block: `[:-1]` are s_t and `[1:]` are s_{t+1}, in the order of the inputs.
    """
    L, J, N = inputs.shape
    state = inputs.new_empty(L + 1, J, N)
    state[0] = 0.0
    spread = decay.expand(J, N).contiguous()
    places = state.unbind(0)
    for i, u in enumerate(inputs.unbind(0)):
        torch.addcmul(u, spread, places[i], out=places[i + 1])
    power = _powers(decay, L)
    ends, over, carry = places[L].unbind(0), power[L], [first]
    for end in ends[:-1]:
        carry.append(torch.addcmul(end, over, carry[-1]))
    return state.addcmul_(power.unsqueeze(1), torch.stack(carry))


def scan_back(inputs: Float64[Tensor, "L J N"], decay: Float64[Tensor, " N"]) -> Float64[Tensor, "M J N"]:
    """The adjoint of `scan`: g_t = inputs_t + decay g_{t+1}, 0 after the last session.

    Returns:
        g in `M = L + 1` places a block: `[:-1]` are g_t and `[1:]` are g_{t+1}, in the order of the inputs.
    """
    L, J, N = inputs.shape
    state = inputs.new_empty(L + 1, J, N)
    state[L] = 0.0
    spread = decay.expand(J, N).contiguous()
    places, u = state.unbind(0), inputs.unbind(0)
    for i in range(L - 1, -1, -1):
        torch.addcmul(u[i], spread, places[i + 1], out=places[i])
    power = _powers(decay, L)
    begins, over, carry = places[0].unbind(0), power[L], [torch.zeros_like(decay)]
    for begin in reversed(begins[1:]):
        carry.append(torch.addcmul(begin, over, carry[-1]))
    return state.addcmul_(power.flip(0).unsqueeze(1), torch.stack(carry[::-1]))


def _powers(decay: Float64[Tensor, " N"], L: int) -> Float64[Tensor, "M N"]:
    """decay^0 to decay^L."""
    return decay ** torch.arange(L + 1, dtype=decay.dtype, device=decay.device).unsqueeze(1)
