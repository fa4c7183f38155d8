import pytest
import torch

from qtorch.nn import Dropout


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_nearest_256th(p):
    x = torch.ones(1001, 999)
    y = Dropout(p)(x)
    share = max(round(256 * p), 1) / 256
    assert (y == 0).float().mean().item() == pytest.approx(share, abs=4 * (share / x.numel()) ** 0.5)
    assert y.max().item() == pytest.approx(1 / (1 - share))
    assert y.mean().item() == pytest.approx(1, abs=5 * (share / (1 - share) / x.numel()) ** 0.5)


def test_elements_are_dropped_apart_from_each_other():
    dropped = (Dropout(0.5)(torch.ones(4000, 64)) == 0).double()
    correlation = torch.corrcoef(dropped.T) - torch.eye(64)
    assert correlation.abs().max() < 6 / 4000**0.5


def test_gradients_go_where_values_went_and_the_same_seed_drops_the_same():
    x = torch.randn(7, 5, requires_grad=True)
    base = torch.randn(7, 5, requires_grad=True)
    drop = Dropout(0.5)
    torch.manual_seed(3)
    y = drop(x, onto=base)
    y.sum().backward()
    torch.testing.assert_close(y, base + x * x.grad)
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}
    assert (base.grad == 1).all()
    torch.manual_seed(3)
    assert torch.equal(drop(x, onto=base), y)


def test_in_evaluation_nothing_is_dropped():
    x = torch.randn(3, 4)
    drop = Dropout(0.5).eval()
    assert drop(x) is x
    assert torch.equal(drop(x, onto=x), 2 * x)
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_no_other_probability(p):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Dropout(p)
