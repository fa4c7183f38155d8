import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.risk import christoffersen, kupiec, traffic_light


def series(exceedances: int, observations: int) -> torch.Tensor:
    return torch.arange(observations) < exceedances


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
    ],
)
def test_kupiecs_published_regions(probability, observations, low, high):
    counts = torch.arange(0, high + 5)
    exceeded = torch.arange(observations)[:, None] < counts
    test = kupiec(exceeded, torch.ones_like(exceeded), probability)
    accepted = counts[test.p_value > 0.05]
    assert (int(accepted.min()) - 1, int(accepted.max()) + 1) == (low, high)


def test_kupiec_by_hand():
    test = kupiec(series(8, 250), torch.ones(250, dtype=torch.bool), 0.01)
    expected = -2 * (242 * np.log(0.99) + 8 * np.log(0.01) - 242 * np.log(242 / 250) - 8 * np.log(8 / 250))
    assert test.statistic.item() == pytest.approx(expected, rel=1e-12)
    assert test.p_value.item() == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-9)
    assert kupiec(series(0, 250), torch.ones(250, dtype=torch.bool), 0.01).statistic.item() == pytest.approx(
        -2 * 250 * np.log(0.99)
    )


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
    mask = torch.rand(300, 6, generator=generator) < 0.8
    independence, joint = christoffersen(exceeded, mask, 0.05)
    coverage = kupiec(exceeded, mask, 0.05)
    for n in range(6):
        expected = reference_christoffersen(exceeded[mask[:, n], n].numpy())
        assert independence.statistic[n].item() == pytest.approx(expected, abs=1e-10)
        assert independence.p_value[n].item() == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-8)
        total = expected + coverage.statistic[n].item()
        assert joint.p_value[n].item() == pytest.approx(stats.chi2.sf(total, 2), rel=1e-8)
    assert independence.p_value[5] < 0.05


def test_sizes_under_the_null_are_near_nominal():
    generator = torch.Generator().manual_seed(1)
    exceeded = torch.rand(1500, 4000, generator=generator) < 0.05
    mask = torch.ones_like(exceeded)
    rejected = (kupiec(exceeded, mask, 0.05).p_value < 0.05).double().mean().item()
    assert rejected == pytest.approx(0.05, abs=0.012)
    _, joint = christoffersen(exceeded, mask, 0.05)
    assert (joint.p_value < 0.05).double().mean().item() == pytest.approx(0.055, abs=0.015)


def test_basels_zones():
    counts = torch.arange(0, 15)
    zones = traffic_light(counts, torch.full_like(counts, 250))
    assert zones.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert traffic_light(torch.tensor([0, 3]), torch.tensor([0, 250])).tolist() == [-1, 0]


def test_no_observation_gives_no_verdict():
    nothing = torch.zeros(10, 1, dtype=torch.bool)
    assert kupiec(nothing, nothing, 0.01).p_value.isnan().all()
    assert christoffersen(nothing, nothing, 0.01)[0].p_value.isnan().all()
