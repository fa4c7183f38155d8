import pytest
import torch

from qtorch.nn.feature_first import MaskedMLP
from qtorch.nn.triangular import staircase_first


@pytest.mark.parametrize(
    "stairs", [[(7, 5)], [(2, 1), (4, 3), (7, 5)], [(0, 0), (3, 0), (3, 2), (7, 5)], [(7, 3), (7, 5)]]
)
def test_what_is_skipped_is_zero(stairs):
    """Values and gradients are those of the dense product, and gradcheck agrees."""
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    start = 0
    for end, columns in stairs:
        weight[start:end, columns:] = 0
        start = end
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    used = weight != 0
    inputs = [tensor.requires_grad_() for tensor in (weight, x, bias)]
    dense = torch.einsum("mk,kab->mab", weight, x) + bias[:, None, None]
    found = staircase_first(weight, x, bias, stairs)
    torch.testing.assert_close(found, dense)
    up = torch.randn_like(dense)
    ours, theirs = torch.autograd.grad(found, inputs, up), torch.autograd.grad(dense, inputs, up)
    torch.testing.assert_close(ours[0], torch.where(used, theirs[0], 0.0))
    torch.testing.assert_close(ours[1:], theirs[1:])
    torch.autograd.gradcheck(lambda x, b: staircase_first(weight.detach(), x, b, stairs), inputs[1:])


@pytest.mark.parametrize("features", [1, 2, 5, 16])
def test_the_stairs_of_a_masked_network_skip_only_zeros(features):
    net = MaskedMLP(features, 3, [7, 12], 4)
    for k, stairs in enumerate(net.stairs):
        mask, start = getattr(net, f"mask_{k + 1}"), 0
        assert stairs[-1] == tuple(mask.shape)
        for end, columns in stairs:
            assert not mask[start:end, columns:].any()
            start = end
