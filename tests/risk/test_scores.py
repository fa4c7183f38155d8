import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Laplace, LogNormal, MultivariateNormal, Normal

from qtorch.distributions import SkewedStudentT
from qtorch.risk import (
    asymmetric_laplace_score,
    expected_shortfall,
    fz0,
    interval_score,
    log_score,
    pinball,
    qlike,
    value_at_risk,
    weighted_quantile_loss,
)


def double(x) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


# Every elementwise score as a function of outcome and positive forecasts, so that rules are tested over all of them.
SCORES = {
    "pinball": (lambda y, v, mask=None: pinball(y, v, 0.9, mask), 1),
    "interval_score": (lambda y, a, b, mask=None: interval_score(y, -a, b, 0.9, mask), 2),
    "fz0": (lambda y, v, e, mask=None: fz0(y, v, e, 0.9, mask), 2),
    "asymmetric_laplace_score": (lambda y, v, e, mask=None: asymmetric_laplace_score(y, v, e, 0.9, mask), 2),
    "qlike": (lambda y, h, mask=None: qlike(y.square(), h, mask), 1),
    "log_score": (lambda y, s, mask=None: log_score(Laplace(0.0, s), y, mask), 1),
}


def test_scores_by_hand():
    y, v, e = (double(x) for x in (-3.0, 1.6, 2.0))
    assert fz0(y, v, e, 0.95).item() == pytest.approx(14 + 0.8 + np.log(2) - 1, abs=1e-12)
    assert fz0(-y, v, e, 0.95).item() == pytest.approx(0.8 + np.log(2) - 1, abs=1e-12)
    assert pinball(y, v, 0.95).item() == pytest.approx(0.95 * 1.4)
    assert pinball(-y, v, 0.95).item() == pytest.approx(0.05 * 4.6)
    # Taylor (2019), equation 9, at v = -1.6, e = -2, p = 0.05.
    assert asymmetric_laplace_score(y, v, e, 0.95).item() == pytest.approx(-np.log(0.475) + 1.4 * 0.95 / 0.1)
    assert asymmetric_laplace_score(-y, v, e, 0.95).item() == pytest.approx(-np.log(0.475) + 4.6 * 0.05 / 0.1)
    assert interval_score(y, -v, v, 0.9).item() == pytest.approx(3.2 + 20 * 1.4)
    assert interval_score(double(1.0), -v, v, 0.9).item() == pytest.approx(3.2)
    assert qlike(double(2.0), double(1.0)).item() == pytest.approx(1 - np.log(2))
    assert qlike(double(2.0), double(3.0), normalised=False).item() == pytest.approx(np.log(3) + 2 / 3)
    assert log_score(Normal(double(1.0), 2.0), y).item() == pytest.approx(-stats.norm(1, 2).logpdf(-3))


@pytest.mark.parametrize("name", SCORES)
def test_holes_and_masked_elements_are_nan_and_leave_gradients_alone(name):
    score, forecasts = SCORES[name]
    y = torch.randn(6, 3, dtype=torch.float64)
    given = [1 + torch.rand(6, 3, dtype=torch.float64) for _ in range(forecasts)]
    whole = score(y, *given)
    y[1, 0], given[-1][2, 1] = torch.nan, torch.nan
    if name == "log_score":  # torch's distributions refuse NaN parameters themselves
        given[-1][2, 1] = 1.0
        y[2, 1] = torch.nan
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[3, 2] = False
    given = [x.requires_grad_() for x in given]
    holed = score(y, *given, mask=mask)
    gone = torch.zeros_like(mask)
    gone[[1, 2, 3], [0, 1, 2]] = True
    torch.testing.assert_close(holed.isnan(), gone)
    torch.testing.assert_close(holed[~gone], whole[~gone])
    holed.nansum().backward()
    for x in given:
        assert x.grad.isfinite().all()
        assert (x.grad[gone] == 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_scores_differentiate_in_the_forecast(name):
    score, forecasts = SCORES[name]
    y = torch.randn(8, dtype=torch.float64)
    given = [(1 + torch.rand(8, dtype=torch.float64)).requires_grad_() for _ in range(forecasts)]
    assert torch.autograd.gradcheck(lambda *forecast: score(y, *forecast), given)


def test_returns_in_per_cent_add_the_log_of_a_hundred():
    y = 0.01 * torch.randn(50, dtype=torch.float64)
    v, e = torch.full_like(y, 0.02), torch.full_like(y, 0.025)
    for score in (fz0, asymmetric_laplace_score):
        torch.testing.assert_close(score(100 * y, 100 * v, 100 * e, 0.975), score(y, v, e, 0.975) + np.log(100))
    torch.testing.assert_close(qlike(1e4 * y**2, 1e4 * v**2), qlike(y**2, v**2))


def test_taylors_score_is_fz0_less_the_scaled_return():
    y, v = torch.randn(50, dtype=torch.float64), 1 + torch.rand(50, dtype=torch.float64)
    e = v + torch.rand(50, dtype=torch.float64)
    expected = fz0(y, v, e, 0.975) + 1 - np.log(0.975) + y / e
    torch.testing.assert_close(asymmetric_laplace_score(y, v, e, 0.975), expected)


def test_scores_are_lowest_at_the_truth():
    law = SkewedStudentT(double(5.0), 0.0, 1.0, 0.9)
    y = law.icdf((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000)
    v, e = value_at_risk(law, 0.975), expected_shortfall(law, 0.975)
    best = fz0(y, v, e, 0.975).mean()
    assert best.item() == pytest.approx(torch.log(e).item(), abs=1e-3)
    for dv, de in ((0.1, 0.1), (-0.1, -0.1), (0.0, 0.2), (0.0, -0.2), (0.2, 0.0)):
        assert fz0(y, v + dv, e + de, 0.975).mean() > best
    assert pinball(y, v + 0.1, 0.975).mean() > pinball(y, v, 0.975).mean() < pinball(y, v - 0.1, 0.975).mean()
    centred, mean = y - y.mean(), y.mean()
    v, e = v + mean, e + mean
    best = asymmetric_laplace_score(centred, v, e, 0.975).mean()
    for dv, de in ((0.1, 0.1), (-0.1, -0.1), (0.0, 0.2), (0.0, -0.2), (0.2, 0.0)):
        assert asymmetric_laplace_score(centred, v + dv, e + de, 0.975).mean() > best
    h = centred.square().mean()
    assert qlike(centred**2, h * 1.1, normalised=False).mean() > qlike(centred**2, h, normalised=False).mean()
    a, b = (law.icdf(double(p)) for p in (0.05, 0.95))
    assert interval_score(y, a - 0.1, b, 0.9).mean() > interval_score(y, a, b, 0.9).mean()
    assert interval_score(y, a, b - 0.1, 0.9).mean() > interval_score(y, a, b, 0.9).mean()


def test_the_interval_score_is_two_pinball_losses():
    y, low = torch.randn(40, dtype=torch.float64), -torch.rand(40, dtype=torch.float64)
    high = torch.rand(40, dtype=torch.float64)
    both = pinball(y, -low, 0.95) + pinball(y, -high, 0.05)
    torch.testing.assert_close(interval_score(y, low, high, 0.9), 20 * both)


def test_the_weighted_quantile_loss_is_the_sum_over_what_counts():
    y, q = torch.randn(30, 4), torch.randn(30, 4, 3)
    probabilities = (0.1, 0.5, 0.9)
    y[3, 1], mask = torch.nan, torch.rand(30, 4) < 0.8
    there = (mask & ~y.isnan()).numpy()
    losses = np.stack([pinball(y, -q[..., k], 1 - p).numpy() for k, p in enumerate(probabilities)], axis=-1)
    expected = 2 * losses[there].sum(0) / y.abs().numpy()[there].sum()
    np.testing.assert_allclose(weighted_quantile_loss(y, q, probabilities, mask), expected, rtol=1e-5)
    one = weighted_quantile_loss(y, q, probabilities, mask, per_series=True)[2]
    alone = 2 * losses[there[:, 2], 2].sum(0) / y[:, 2].abs().numpy()[there[:, 2]].sum()
    np.testing.assert_allclose(one, alone, rtol=1e-5)
    assert weighted_quantile_loss(y, q, probabilities, torch.zeros_like(mask)).isnan().all()
    with pytest.raises(ValueError, match="give 3 left-tail masses"):
        weighted_quantile_loss(y, q, (0.1, 0.5))


def test_the_log_score_of_a_joint_forecast_needs_all_of_an_outcome():
    law = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    y = double([[0.1, 0.2], [0.3, torch.nan]])
    score = log_score(law, y)
    assert score.isnan().tolist() == [False, True]
    marginals = Independent(Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
    torch.testing.assert_close(score, log_score(marginals, y), equal_nan=True)
    positive = log_score(LogNormal(torch.zeros(2), 1.0), torch.tensor([1.0, torch.nan]))
    assert positive.isnan().tolist() == [False, True]


def test_impossible_forecasts_are_refused():
    for score in (fz0, asymmetric_laplace_score):
        with pytest.raises(ValueError, match=r"1 of 2 are not, the first at \(1,\)"):
            score(torch.zeros(2), torch.ones(2), torch.tensor([1.0, -1.0]), 0.99)
        masked = score(torch.zeros(2), torch.ones(2), torch.tensor([1.0, -1.0]), 0.99, torch.tensor([True, False]))
        assert masked.isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="1 are not"):
        qlike(torch.ones(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="confidence inside"):
        pinball(torch.zeros(1), torch.ones(1), 99.0)
    with pytest.raises(ValueError, match="coverage=95"):
        interval_score(torch.zeros(1), torch.zeros(1), torch.ones(1), 95.0)
