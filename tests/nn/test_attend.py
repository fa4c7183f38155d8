"""Attention of several nets at once is that of each, and its gradient."""

import pytest
import torch

from qtorch.nn.attend import attend


@pytest.mark.parametrize(
    ("of", "causal"), [("none", False), ("none", True), ("keys", False), ("windows", False), ("nets", False)]
)
@pytest.mark.parametrize("shared", [False, True])
def test_nets_at_once_are_each_alone(of, causal, shared):
    """With masks of keys, of windows, of nets' own windows; keys of all nets or one for all."""
    nets, B, heads, C, width = 3, 2, 4, 5, 6
    q, k, v = (torch.randn(nets, B, heads, C, width, requires_grad=True) for _ in range(3))
    shape = {"keys": (C, C), "windows": (B, 1, 1, C), "nets": (nets, B, 1, 1, C)}.get(of)
    allowed = None if shape is None else torch.rand(shape) < 0.7
    if allowed is not None:
        allowed[..., 0] = True
    own = of == "nets"
    given = (q, k[0] if shared else k, v, allowed)
    dims = (0, None if shared else 0, 0, 0 if own else None)
    out = torch.func.vmap(lambda q, k, v, mask: attend(q, k, v, mask, 0.0, causal, together=True), dims)(*given)
    alone = torch.stack(
        [
            attend(q[n], k[0] if shared else k[n], v[n], allowed[n] if own else allowed, causal=causal)
            for n in range(nets)
        ]
    )
    torch.testing.assert_close(out, alone, rtol=0, atol=1e-6)
    weight = torch.randn_like(out)
    one, other = (torch.autograd.grad(result, (q, k, v), weight) for result in (out, alone))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_without_vmap_it_is_torchs():
    q = torch.randn(2, 3, 4, 6, requires_grad=True)
    one, other = (attend(q, q, q, causal=True, together=together) for together in (False, True))
    assert torch.equal(one, other)
    assert torch.equal(*(torch.autograd.grad(out.square().sum(), q)[0] for out in (one, other)))
