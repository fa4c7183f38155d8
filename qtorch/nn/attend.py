"""Attention that `torch.func.vmap` takes as it is: the nets' batches become one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend(
    q: Float[Tensor, "B heads Q width"],
    k: Float[Tensor, "B heads K width"],
    v: Float[Tensor, "B heads K width"],
    allowed: Bool[Tensor, "*any K"] | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    together: bool = False,
) -> Float[Tensor, "B heads Q width"]:
    """Torch's scaled dot-product attention.

    Args:
        q: queries.
        k: keys.
        v: values.
        allowed: which query may attend to which key, broadcast to `[B, heads, Q, K]`.
        dropout: probability of dropping an attention weight.
        causal: each query may attend to the keys up to its own place; without `allowed`.
        together: whether vmap may run over several nets. Torch's fused kernels have no rule for it on CPUs, and would
            run net after net; this operation gives them one batch of all nets' queries.
    """
    # With dropout torch multiplies matrices, and vmap draws for each net; an export would find an operation of ours.
    if together and not dropout and not torch.compiler.is_exporting():
        return _operation(q, k, v, allowed, causal)
    return _attention(q, k, v, allowed, causal, dropout)


def _attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, causal: bool, dropout: float = 0.0) -> Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout, is_causal=causal)


def _vectorise(info, in_dims, q, k, v, allowed, causal):  # type: ignore[no-untyped-def]
    """All nets' batches as one; autograd then differentiates torch's own attention."""
    nets = info.batch_size

    def stacked(tensor, dim):  # type: ignore[no-untyped-def]
        return tensor.expand(nets, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

    q, k, v = (stacked(tensor, dim).flatten(0, 1) for tensor, dim in zip((q, k, v), in_dims[:3], strict=True))
    if allowed is not None:
        own = in_dims[3] is not None
        allowed = allowed.movedim(in_dims[3], 0) if own else allowed
        while allowed.ndim < 4 + own:
            allowed = allowed.unsqueeze(int(own))
        if own or allowed.shape[0] > 1:  # else the same for every window of every net
            batch = q.shape[0] // nets
            shape = (nets, batch, *allowed.shape[-3:])
            allowed = allowed.expand(shape).flatten(0, 1)
    return _attention(q, k, v, allowed, causal).unflatten(0, (nets, -1)), 0


torch.library.define("qtorch::attention", "(Tensor q, Tensor k, Tensor v, Tensor? allowed, bool causal) -> Tensor")
torch.library.impl("qtorch::attention", "CompositeImplicitAutograd", _attention)
torch.library.register_vmap("qtorch::attention", _vectorise)
_operation = torch.ops.qtorch.attention.default
