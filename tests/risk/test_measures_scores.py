import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from qtorch.distributions import SkewedStudentT
from qtorch.risk import expected_shortfall, fz0, pinball, value_at_risk


def test_measures_are_positive_losses_at_a_confidence():
    law = Normal(torch.tensor(0.001, dtype=torch.float64), 0.02)
    z = stats.norm.ppf(0.01)
    assert value_at_risk(law, 0.99).item() == pytest.approx(-(0.001 + 0.02 * z), rel=1e-9)
    assert expected_shortfall(law, 0.99).item() == pytest.approx(-(0.001 - 0.02 * stats.norm.pdf(z) / 0.01), rel=1e-9)
    for level in (0.0, 1.0, 99.0):
        with pytest.raises(ValueError, match="confidence inside"):
            value_at_risk(law, level)


def test_scores_by_hand():
    y, v, e = (torch.tensor(x, dtype=torch.float64) for x in (-3.0, 1.6, 2.0))
    assert fz0(y, v, e, 0.95).item() == pytest.approx(14 + 0.8 + np.log(2) - 1, abs=1e-12)
    assert fz0(-y, v, e, 0.95).item() == pytest.approx(0.8 + np.log(2) - 1, abs=1e-12)
    assert pinball(y, v, 0.95).item() == pytest.approx(0.95 * 1.4)
    assert pinball(-y, v, 0.95).item() == pytest.approx(0.05 * 4.6)


def test_returns_in_per_cent_add_the_log_of_a_hundred():
    y = 0.01 * torch.randn(50, dtype=torch.float64)
    v, e = torch.full_like(y, 0.02), torch.full_like(y, 0.025)
    torch.testing.assert_close(fz0(100 * y, 100 * v, 100 * e, 0.975), fz0(y, v, e, 0.975) + np.log(100))


def test_scores_are_lowest_at_the_truth():
    law = SkewedStudentT(torch.tensor(5.0, dtype=torch.float64), 0.0, 1.0, 0.9)
    y = law.icdf((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000)
    v, e = value_at_risk(law, 0.975), expected_shortfall(law, 0.975)
    best = fz0(y, v, e, 0.975).mean()
    assert best.item() == pytest.approx(torch.log(e).item(), abs=1e-3)
    for dv, de in ((0.1, 0.1), (-0.1, -0.1), (0.0, 0.2), (0.0, -0.2), (0.2, 0.0)):
        assert fz0(y, v + dv, e + de, 0.975).mean() > best
    assert pinball(y, v + 0.1, 0.975).mean() > pinball(y, v, 0.975).mean() < pinball(y, v - 0.1, 0.975).mean()


def test_fz0_refuses_gains_and_keeps_holes():
    with pytest.raises(ValueError, match="1 of 2 are not"):
        fz0(torch.zeros(2), torch.ones(2), torch.tensor([1.0, -1.0]), 0.99)
    assert fz0(torch.tensor([torch.nan]), torch.ones(1), torch.ones(1), 0.99).isnan().all()
