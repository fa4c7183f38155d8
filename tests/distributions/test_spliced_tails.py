"""Spliced tails: the body they keep, the joints, the ends."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Gumbel, Normal

from qtorch.distributions import (
    Affine,
    ExpMinusOne,
    JohnsonSU,
    Mixture,
    SkewedStudentT,
    SplicedTails,
    StudentT,
    log_cdf,
    partial_mean,
    tail_mean,
    take,
)
from tests.distributions.test_families import integral


def double(*values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


BODIES = {
    "normal": Normal(*double(0.1, 1.2)),
    "student": StudentT(*double(4.0, 0.1, 1.2)),
    "skewed": SkewedStudentT(*double(5.0, 0.1, 1.2, 0.8)),
    "johnson": JohnsonSU(*double(0.4, 1.5, 0.2, 1.3)),
    "mixture": Mixture(double([0.8, 0.2])[0], StudentT(*double([4.0, 6.0], [0.1, -1.0], [1.0, 3.0]))),
    "affine": Affine(StudentT(*double(5.0)), *double(0.1, 1.2)),
    "exp_minus_one": ExpMinusOne(StudentT(*double(5.0, 0.0, 0.2))),
    "gumbel": Gumbel(*double(0.1, 1.2)),
}
X = torch.linspace(-8, 8, 161, dtype=torch.float64)
bodies = pytest.mark.parametrize("name", BODIES)


@bodies
def test_between_the_thresholds_it_is_the_body(name):
    body = BODIES[name]
    law = SplicedTails(body, 0.05, 0.2, 0.1, 0.1)
    p = torch.linspace(0.051, 0.899, 50, dtype=torch.float64)
    x = body.icdf(p)
    torch.testing.assert_close(law.icdf(p), x, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(law.log_prob(x), body.log_prob(x))
    torch.testing.assert_close(law.cdf(x), p, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(law.log_cdf(x), torch.log(p), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(law.log_sf(x), torch.log1p(-p), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in BODIES if name != "mixture"])  # its quantiles take seconds here
def test_the_density_is_continuous_and_integrates_to_the_moments(name):
    body = BODIES[name]
    law = SplicedTails(body, 0.05, 0.2, 0.1, -0.3)
    low, high = body.icdf(torch.tensor([0.05, 0.9], dtype=torch.float64))
    for threshold in (low, high):
        left, right = law.log_prob(torch.stack((threshold - 1e-9, threshold + 1e-9)))
        assert left.item() == pytest.approx(right.item(), abs=1e-7)
    ends = [law.icdf(double(p)[0]).item() for p in (0.0, 0.001, 0.05, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)]
    ends = sorted([*ends, 0.1])

    def moment(power):
        return sum(integral(law, lambda x: x**power, a, b) for a, b in zip(ends[:-1], ends[1:], strict=True))

    assert ends[-1] < math.inf
    assert moment(0) == pytest.approx(1, abs=1e-11)
    assert moment(1) == pytest.approx(law.mean.item(), abs=1e-9)
    assert moment(2) - moment(1) ** 2 == pytest.approx(law.variance.item(), rel=1e-9)


@pytest.mark.parametrize("name", ["normal", "student", "skewed"])
def test_sides_without_a_mass_keep_the_bodys_tail(name):
    body = BODIES[name]
    p = torch.tensor([1e-9, 0.01, 0.5, 0.99], dtype=torch.float64)
    for law in (SplicedTails(body), SplicedTails(body, 0.0, 0.3, torch.tensor(0.0), 0.1)):
        torch.testing.assert_close(law.log_prob(X), body.log_prob(X))
        torch.testing.assert_close(law.log_cdf(X), log_cdf(body, X))
        torch.testing.assert_close(law.icdf(p[1:]), body.icdf(p[1:]))
        torch.testing.assert_close(law.mean, body.mean)
        torch.testing.assert_close(law.variance, body.variance, rtol=1e-11, atol=0)
        torch.testing.assert_close(law.entropy(), body.entropy(), rtol=1e-11, atol=0)
        torch.testing.assert_close(tail_mean(law, p), tail_mean(body, p), rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(partial_mean(law, X), partial_mean(body, X), rtol=1e-11, atol=1e-13)
    above = SplicedTails(body, upper_mass=0.05, upper_concentration=0.1)
    torch.testing.assert_close(above.log_cdf(X[:80]), log_cdf(body, X[:80]))
    some = SplicedTails(body, double([0.05, 0.0])[0], 0.2, double([0.0, 0.05])[0], 0.2)
    torch.testing.assert_close(some.variance[1], SplicedTails(body, None, None, 0.05, 0.2).variance, rtol=1e-12, atol=0)
    torch.testing.assert_close(some.mean[0], SplicedTails(body, 0.05, 0.2).mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(take(some, 1).icdf(p[1]), body.icdf(p[1]))


def test_tails_are_generalised_pareto():
    law = SplicedTails(BODIES["student"], *double(0.05, 0.3, 0.08, -0.25), lower_scale=0.7, upper_scale=0.4)
    low, high = BODIES["student"].icdf(torch.tensor([0.05, 0.92], dtype=torch.float64)).tolist()
    lower, upper = stats.genpareto(0.3, 0, 0.7), stats.genpareto(-0.25, 0, 0.4)
    for e in (1e-3, 0.2, 1.5):
        below, above = double(low - e, high + e)
        assert law.cdf(below).item() == pytest.approx(0.05 * lower.sf(e), rel=1e-12)
        assert law.log_sf(above).item() == pytest.approx(math.log(0.08) + upper.logsf(e), rel=1e-12)
        assert law.log_prob(above).item() == pytest.approx(math.log(0.08) + upper.logpdf(e), rel=1e-12)
    # McNeil and Frey's expected shortfall: VaR / (1 - xi) + (s - xi u) / (1 - xi), in losses.
    q = -law.icdf(double(0.01)[0]).item()
    assert -tail_mean(law, 0.01).item() == pytest.approx(q / 0.7 + (0.7 - 0.3 * -low) / 0.7, rel=1e-12)


def test_a_negative_concentration_ends_the_tail():
    law = SplicedTails(BODIES["normal"], *double(0.05, -0.5), lower_scale=1.0)
    end = BODIES["normal"].icdf(double(0.05)[0]).item() - 2
    x = torch.tensor([end - 1e3, end - 1e-6, end + 1e-6, math.inf, -math.inf], dtype=torch.float64, requires_grad=True)
    assert law.icdf(double(0.0)[0]).item() == pytest.approx(end)
    assert law.log_prob(x)[:2].tolist() == [-math.inf] * 2
    assert law.cdf(x)[:2].tolist() == [0, 0]
    assert law.cdf(x)[3:].tolist() == [1, 0]
    assert law.partial_mean(x)[:2].tolist() == [0, 0]
    assert 0 < law.cdf(x)[2].item() < 1e-12
    assert law.icdf(torch.tensor([-0.1, 1.1]).double()).isnan().all()


@pytest.mark.parametrize("xi", [-0.5, 0.0, 0.4])
def test_gradients_are_numbers_everywhere(xi):
    leaves = [value.requires_grad_() for value in double(0.1, 1.2, 0.05, xi, 0.0, xi)]
    law = SplicedTails(Normal(*leaves[:2]), *leaves[2:])
    x = torch.tensor([-1e8, -40.0, law.icdf(double(0.05)[0]).item(), 0.0, 30.0]).double().requires_grad_()
    for function in (law.log_prob, law.cdf, law.partial_mean):
        values = function(x)
        for gradient in torch.autograd.grad(values[values.isfinite()].sum(), (x, *leaves), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()
    total = law.mean + law.variance + law.entropy() + law.rsample((50,)).sum()
    assert all(gradient.isfinite() for gradient in torch.autograd.grad(total, leaves))


def test_moments_that_do_not_exist_are_infinite():
    body = BODIES["student"]
    assert SplicedTails(body, 0.05, 0.7).variance == math.inf
    assert SplicedTails(body, 0.05, 1.2).mean == -math.inf
    assert SplicedTails(body, 0.05, 1.2).variance == math.inf
    assert SplicedTails(body, upper_mass=0.05, upper_concentration=1.2).mean == math.inf
    light = SplicedTails(StudentT(*double(0.9)), 0.05, 0.1, 0.05, 0.1)
    assert light.variance.isfinite()
    assert light.mean.item() == pytest.approx(0, abs=1e-12)


def test_dtypes_and_shapes_follow_body_and_parameters():
    assert SplicedTails(Normal(torch.zeros(3), 1.0), 0.05, 0.2).mean.dtype == torch.float32
    assert SplicedTails(BODIES["normal"], 0.05, 0.2).lower_mass.item() == 0.05
    law = SplicedTails(Normal(torch.zeros(3), 1.0), torch.full((2, 1), 0.05), double(0.2)[0])
    assert law.batch_shape == (2, 3)
    assert law.mean.dtype == torch.float64
    assert law.sample((5,)).shape == (5, 2, 3)
    assert "lower_scale" not in repr(law)


def test_settings_that_make_no_sense_are_named():
    body = BODIES["normal"]
    with pytest.raises(ValueError, match="needs lower_concentration with lower_mass"):
        SplicedTails(body, 0.05)
    with pytest.raises(ValueError, match="needs upper_mass with upper_concentration"):
        SplicedTails(body, upper_concentration=0.2)
    with pytest.raises(ValueError, match=r"finite upper_mass between 0\.0 and 0\.5; 1 of 2 are not, the first is 0\.5"):
        SplicedTails(body, upper_mass=double([0.05, 0.5])[0], upper_concentration=0.2)
    with pytest.raises(ValueError, match=r"finite lower_scale above 0\.0"):
        SplicedTails(body, 0.05, 0.2, lower_scale=-1.0)
