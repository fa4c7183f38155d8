"""The rational-quadratic spline against autograd, its own inverse and curves that it contains."""

import pytest
import torch

from qtorch.distributions.rational_quadratic import inverse, mean_slopes, spline


def points(spread, count=9, batch=(20,), dtype=torch.float64):
    """Random knots, values and slopes, these within a factor of about `spread` of 1."""
    knots = torch.cumsum(torch.rand(*batch, count, dtype=dtype) + 0.05, -1) - 2
    values = torch.cumsum(torch.rand(*batch, count, dtype=dtype) + 0.05, -1) - 3
    return knots, values, spread ** (2 * torch.rand(*batch, count, dtype=dtype) - 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
@pytest.mark.parametrize("far", [3.0, 1e6])
def test_the_inverse_inverts(dtype, tolerance, far):
    curve = points(3.0, dtype=dtype)
    x = torch.linspace(-far, far, 801, dtype=dtype).unsqueeze(-1)
    y, log_slope = spline(x, *curve)
    again, log_slope_again = inverse(y, *curve)
    torch.testing.assert_close(again, x.expand_as(again), rtol=tolerance, atol=10 * tolerance)
    torch.testing.assert_close(log_slope_again, log_slope, rtol=100 * tolerance, atol=100 * tolerance)
    assert (y.diff(dim=0) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_steep_and_flat_bins_stay_monotone_finite_and_consistent(dtype):
    curve = points(1e4, dtype=dtype)
    y = torch.linspace(-5, 12, 2001, dtype=dtype).unsqueeze(-1)
    x, log_slope = inverse(y, *curve)
    assert log_slope.isfinite().all()
    torch.testing.assert_close(spline(x, *curve)[0], y.expand_as(x), rtol=0, atol=3e4 * torch.finfo(dtype).eps)


def test_slopes_are_the_derivatives():
    curve = points(5.0)
    x = torch.linspace(-4, 9, 301, dtype=torch.float64).unsqueeze(-1).expand(-1, 20).clone().requires_grad_()
    y, log_slope = spline(x, *curve)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.exp(log_slope), rtol=1e-11, atol=1e-12)
    y = y.detach().requires_grad_()
    x, log_slope = inverse(y, *curve)
    torch.testing.assert_close(torch.autograd.grad(x.sum(), y)[0], torch.exp(-log_slope), rtol=1e-9, atol=1e-12)


def test_gradients_reach_everything():
    curve = [tensor.requires_grad_() for tensor in points(3.0, count=4, batch=(2,))]
    x = torch.tensor([-3.7, -1.2, 0.11, 0.7, 5.0], dtype=torch.float64).unsqueeze(-1).requires_grad_()
    for function in (spline, inverse):
        assert torch.autograd.gradcheck(function, (x, *curve))
        assert torch.autograd.gradgradcheck(lambda *a, f=function: f(*a)[0], (x, *curve), atol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 3.0, 1e3])
def test_at_borders_of_bins_gradients_are_those_of_the_slopes(spread):
    curve = knots, values, slopes = points(spread)
    for function, at, expected in ((spline, knots, slopes), (inverse, values, 1 / slopes)):
        leaves = [tensor.clone().requires_grad_() for tensor in curve]
        x = at.movedim(-1, 0).clone().requires_grad_()
        y, log_slope = function(x, *leaves)
        gradients = torch.autograd.grad(y.sum() + 0 * log_slope.sum(), (x, *leaves))
        assert all(gradient.isfinite().all() for gradient in gradients)
        torch.testing.assert_close(gradients[0].movedim(0, -1), expected, rtol=1e-9, atol=0)


def test_knots_on_a_line_give_the_line_and_on_a_hyperbola_the_hyperbola():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    knots = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    y, log_slope = spline(x, knots, 3 * knots - 1, torch.full_like(knots, 3.0))
    torch.testing.assert_close(y, 3 * x - 1, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(torch.exp(log_slope), torch.full_like(x, 3.0), rtol=1e-14, atol=0)
    inside = x[(x >= -1) & (x <= 2)]
    y, _ = spline(inside, knots, -1 / (knots + 2), (knots + 2) ** -2)
    torch.testing.assert_close(y, -1 / (inside + 2), rtol=1e-13, atol=0)


def test_slopes_through_points_are_positive_of_second_order_and_end_in_the_secants():
    errors = []
    for step in (0.02, 0.01):
        knots = torch.arange(-1, 1 + step / 2, step, dtype=torch.float64)
        knots = knots + 0.2 * step * torch.sin(7 * knots)
        errors.append((mean_slopes(knots, torch.sinh(knots)) - torch.cosh(knots))[1:-1].abs().max().item())
    assert errors[1] < 0.27 * errors[0]
    knots, values, _ = points(1.0)
    slopes = mean_slopes(knots, values)
    assert (slopes > 0).all()
    secants = values.diff(dim=-1) / knots.diff(dim=-1)
    torch.testing.assert_close(slopes[:, [0, -1]], secants[:, [0, -1]])
    assert torch.autograd.gradcheck(mean_slopes, (knots[:2].requires_grad_(), values[:2].requires_grad_()))


def test_shapes_broadcast_and_infinities_pass():
    knots, values, slopes = points(2.0, batch=(4, 3))
    x = torch.randn(7, 1, 1, dtype=torch.float64)
    assert spline(x, knots, values[0], slopes[:, :1])[0].shape == (7, 4, 3)
    ends = torch.tensor([-torch.inf, torch.inf], dtype=torch.float64)
    assert spline(ends, knots[0, 0], values[0, 0], slopes[0, 0])[0].tolist() == ends.tolist()
    assert inverse(ends, knots[0, 0], values[0, 0], slopes[0, 0])[0].tolist() == ends.tolist()
