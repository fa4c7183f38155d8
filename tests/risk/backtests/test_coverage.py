import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.risk import christoffersen, kupiec
from qtorch.risk.backtests import exceedances, time_until_first_failure
from tests.risk.backtests.panels import holes, share_rejected


def series(count: int, observations: int) -> torch.Tensor:
    return torch.arange(observations) < count


# Kupiec (1995), table of non-rejection regions at 5 % test size: N lies strictly between.
@pytest.mark.parametrize(
    ("probability", "observations", "low", "high"),
    [
        (0.01, 255, 0, 7),  # the table prints N < 7; the statistic also rejects none at all
        (0.01, 510, 1, 11),
        (0.01, 1000, 4, 17),
        (0.025, 255, 2, 12),
        (0.025, 510, 6, 21),
        (0.025, 1000, 15, 36),
        (0.05, 255, 6, 21),
        (0.05, 510, 16, 36),
        (0.05, 1000, 37, 65),
        (0.075, 255, 11, 28),
        (0.075, 510, 27, 51),
        (0.075, 1000, 59, 92),
        (0.10, 255, 16, 36),
        (0.10, 510, 38, 65),
        (0.10, 1000, 81, 120),
    ],
)
def test_kupiecs_published_regions(probability, observations, low, high):
    counts = torch.arange(0, high + 5)
    exceeded = torch.arange(observations)[:, None] < counts
    test = kupiec(exceeded, 1 - probability)
    accepted = counts[test.p_value > 0.05]
    assert (int(accepted.min()) - 1, int(accepted.max()) + 1) == (low, high)


def test_kupiec_by_hand():
    test = kupiec(series(8, 250), 0.99)
    expected = -2 * (242 * np.log(0.99) + 8 * np.log(0.01) - 242 * np.log(242 / 250) - 8 * np.log(8 / 250))
    assert test.statistic.item() == pytest.approx(expected, rel=1e-12)
    assert test.p_value.item() == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-9)
    assert kupiec(series(0, 250), 0.99).statistic.item() == pytest.approx(-2 * 250 * np.log(0.99))
    assert kupiec(series(250, 250), 0.99).statistic.item() == pytest.approx(-2 * 250 * np.log(0.01))


def test_first_failures_published_region():
    # Kupiec (1995): at 1 % the first failure is not rejected where 6 < V < 439.
    first = torch.arange(1, 600)
    exceeded = torch.arange(1, 601)[:, None] == first
    accepted = first[time_until_first_failure(exceeded, 0.99).p_value > 0.05]
    assert (int(accepted.min()) - 1, int(accepted.max()) + 1) == (6, 439)


def test_first_failure_by_hand():
    test = time_until_first_failure(torch.stack([series(1, 40).roll(9), series(0, 40), series(1, 40)], 1), 0.95)
    at_ten = 2 * (np.log(0.1 * 0.9**9) - np.log(0.05 * 0.95**9))
    assert test.statistic.tolist() == pytest.approx([at_ten, -80 * np.log(0.95), -2 * np.log(0.05)])
    assert test.p_value.numpy() == pytest.approx(stats.chi2.sf(test.statistic.numpy(), 1))


def reference_christoffersen(hits: np.ndarray) -> float:
    n = np.zeros((2, 2))
    for before, now in zip(hits[:-1], hits[1:], strict=True):
        n[int(before), int(now)] += 1
    share = n[:, 1].sum() / n.sum()
    rows = n[:, 1] / np.maximum(n.sum(1), 1)

    def loglik(k, m, p):
        return (k * np.log(p) if k else 0) + ((m - k) * np.log(1 - p) if m - k else 0)

    chain = sum(loglik(n[i, 1], n[i].sum(), rows[i]) for i in (0, 1))
    return max(0, 2 * (chain - loglik(n[:, 1].sum(), n.sum(), share)))


def test_christoffersen_on_a_panel_with_holes_is_the_loop_over_series():
    generator = torch.Generator().manual_seed(0)
    exceeded = torch.rand(300, 6, generator=generator) < 0.06
    exceeded[:, 5] = (torch.arange(300) % 40) < 2
    mask = holes((300, 6), 0.2)
    independence, joint = christoffersen(exceeded, 0.95, mask)
    coverage = kupiec(exceeded, 0.95, mask)
    for n in range(6):
        expected = reference_christoffersen(exceeded[mask[:, n], n].numpy())
        assert independence.statistic[n].item() == pytest.approx(expected, abs=1e-10)
        assert independence.p_value[n].item() == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-8)
        total = expected + coverage.statistic[n].item()
        assert joint.p_value[n].item() == pytest.approx(stats.chi2.sf(total, 2), rel=1e-8)
    assert independence.p_value[5] < 0.05
    simulated = christoffersen(exceeded, 0.95, mask, draws=2000, generator=generator)
    assert torch.allclose(simulated.conditional_coverage.p_value, joint.p_value, atol=0.15)


def test_sizes_under_the_null_are_near_nominal():
    generator = torch.Generator().manual_seed(1)
    exceeded = torch.rand(1500, 4000, generator=generator) < 0.05
    assert share_rejected(kupiec(exceeded, 0.95).p_value) == pytest.approx(0.05, abs=0.012)
    assert share_rejected(christoffersen(exceeded, 0.95).conditional_coverage.p_value) == pytest.approx(0.06, abs=0.015)


def test_a_missing_day_is_no_exceedance_and_no_observation():
    returns = torch.tensor([-0.03, torch.nan, 0.01, -0.02])
    var = torch.tensor([0.02, 0.02, torch.nan, 0.02])
    assert exceedances(returns, var).tolist() == [True, False, False, True]


def test_a_var_that_is_given_as_a_return_is_refused():
    returns, var = torch.zeros(4, 2), torch.tensor([-0.02, -0.02, torch.nan, 0.01])[:, None].expand(4, 2)
    with pytest.raises(ValueError, match="negative in 4 of 6 places: give losses as positive numbers"):
        exceedances(returns, var)
    assert exceedances(returns, var.nan_to_num(0.01)).sum() == 4


def test_no_observation_gives_no_verdict():
    nothing = torch.zeros(10, 1, dtype=torch.bool)
    for test in (kupiec, time_until_first_failure):
        result = test(nothing, 0.99, nothing)
        assert result.p_value.isnan().all()
        assert result.observations.tolist() == [0]
    assert christoffersen(nothing, 0.99, nothing).independence.p_value.isnan().all()
    assert christoffersen(nothing[:1], 0.99).independence.p_value.isnan().all()
    assert kupiec(nothing[:0], 0.99).p_value.isnan().all()
