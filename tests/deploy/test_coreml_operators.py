"""Operators are written by others that give the same numbers."""

import pytest
import torch

from qtorch.deploy.coreml_operators import operators

aten = torch.ops.aten
x = torch.randn(3, 4, 5)
at = torch.randint(4, (3, 6, 5))
order = torch.rand(3, 4, 5).argsort(1)
CALLS = {
    "gather": (aten.gather.default, (x, 1, at)),
    "gather, last": (aten.gather.default, (x, -1, torch.randint(5, (3, 4, 1)))),
    "gather, bool": (aten.gather.default, (x > 0, 1, at)),
    "scatter": (aten.scatter.src, (torch.zeros_like(order), 1, order, torch.arange(4)[:, None].expand(3, 4, 5))),
    "scatter_add": (aten.scatter_add.default, (x, -2, at, torch.randn(at.shape))),
    "select_scatter": (aten.select_scatter.default, (x, torch.randn(3, 5), 1, 2)),
    "select_scatter, last": (aten.select_scatter.default, (x, torch.randn(3, 4), -1, -1)),
    "slice_scatter": (aten.slice_scatter.default, (x, torch.randn(3, 2, 5), 1, 1, -1)),
    "slice_scatter, to the end": (aten.slice_scatter.default, (x, torch.randn(3, 3, 5), 1, 1, 2**63 - 1)),
    "index_select, bool": (aten.index_select.default, (x > 0, 1, torch.tensor([3, 0, 0]))),
    "diagonal": (aten.diagonal.default, (torch.where(torch.eye(4) > 0, torch.arange(4.0), torch.nan),)),
    "diagonal, of several": (aten.diagonal.default, (torch.randn(2, 3, 3), 0, -2, -1)),
    "trunc": (aten.trunc.default, (3 * x,)),
    "unfold": (aten.unfold.default, (x, 2, 3, 2)),
    "unfold, along the middle": (aten.unfold.default, (x, 1, 2, 1)),
    "lerp": (aten.lerp.Tensor, (x, x.flip(0), torch.rand(3, 4, 5).round(decimals=1))),
    "copysign": (aten.copysign.Tensor, (x, -x.flip(0))),
}


@pytest.mark.parametrize(("operator", "given"), CALLS.values(), ids=CALLS)
def test_what_coremltools_does_not_know_keeps_its_numbers(operator, given):
    torch.testing.assert_close(operators()[operator](*given), operator(*given))


@pytest.mark.parametrize("operator", [aten.add.Tensor, aten.sub.Tensor])
def test_scaled_sums_keep_their_numbers_and_plain_ones_are_left(operator):
    y = torch.randn(2, 1, 1)
    torch.testing.assert_close(operators()[operator](x, y[0], alpha=9.9), operator(x, y[0], alpha=9.9))
    assert operators()[operator](x, y[0]) is NotImplemented
