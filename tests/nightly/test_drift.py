import math

import pytest
import torch
from scipy import special, stats

from qtorch.nightly.drift import coverage_evidence, level_ratio, read_drift, uniformity
from qtorch.nightly.gate_config import CoverageDrift, DriftConfig, UniformityDrift, VolatilityDrift
from qtorch.nightly.record import Record


def dependent(sims: int, days: int, assets: int, rho: float, seed: int = 0) -> torch.Tensor:
    """Uniform transforms of assets that share a factor."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(sims, days, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(sims, days, assets, generator=generator, dtype=torch.float64)
    return torch.special.ndtr(math.sqrt(rho) * shared + math.sqrt(1 - rho) * own)


@pytest.mark.parametrize("assets", [1, 30])
def test_right_forecasts_make_little_evidence_however_assets_depend(assets):
    draws = dependent(200, 250, assets, rho=0.6)
    evidence = torch.tensor([uniformity(draw).evidence for draw in draws])
    assert (evidence > 10).double().mean() <= 0.1  # Markov's bound
    assert evidence.mean() < 1 + 4 * evidence.std() / math.sqrt(len(evidence))
    if assets > 1:
        pooled = [stats.kstest(draw.flatten().numpy(), "uniform").pvalue for draw in draws[:20]]
        assert sum(x < 0.05 for x in pooled) > 10  # what a test that takes assets for independent would say


def test_the_evidence_is_that_of_bets_on_legendre_moments():
    draw = dependent(1, 120, 5, rho=0.3)[0] ** 1.2
    draw[3, 2] = draw[7] = torch.nan
    made = []
    for k in range(1, 5):
        moment = math.sqrt(2 * k + 1) * torch.from_numpy(special.eval_sh_legendre(k, draw.numpy())).nanmean(1)
        for values in (moment[moment.isfinite()].tolist(), (-moment[moment.isfinite()]).tolist()):
            wealth, bet = 1.0, 0.0
            for t, value in enumerate(values, start=1):
                wealth *= 1 + bet * value
                best = sum(values[:t]) / sum(x * x for x in values[:t])
                bet = min(max(best, 0.0), (0.05 if t < 15 else 0.5) / math.sqrt(2 * k + 1))
            made.append(wealth)
    found = uniformity(draw)
    assert found.evidence == pytest.approx(sum(made) / 8, rel=1e-9)
    assert found.sessions == 119
    assert found.distance == pytest.approx(stats.kstest(draw[draw.isfinite()].numpy(), "uniform").statistic)


@pytest.mark.parametrize("wrong", [lambda z: 1.4 * z, lambda z: z - 0.5, lambda z: z / 1.4])
def test_wrong_forecasts_are_found(wrong):
    u = dependent(1, 250, 20, rho=0.5, seed=3)[0]
    found = uniformity(torch.special.ndtr(wrong(torch.special.ndtri(u))))
    assert found.evidence > 1000
    assert found.distance > 0.05


def test_right_values_at_risk_make_little_evidence_however_assets_depend():
    u = dependent(1000, 250, 20, rho=0.7, seed=1)
    evidence = torch.tensor([coverage_evidence(day < 0.01, 0.99, torch.ones_like(day).bool()) for day in u])
    assert (evidence > 20).double().mean() <= 0.05  # Markov's bound
    assert evidence.mean() < 1 + 4 * evidence.std() / math.sqrt(len(evidence))


def test_values_at_risk_that_are_too_small_make_much():
    u = dependent(20, 250, 20, rho=0.4, seed=2)
    evidence = [coverage_evidence(day < 0.03, 0.99, torch.ones_like(day).bool()) for day in u]
    assert sum(x > 100 for x in evidence) >= 18


def test_what_is_masked_counts_for_nothing():
    u = dependent(1, 100, 6, rho=0.4)[0]
    mask = u > 0.2
    exceeded = u < 0.25
    first = coverage_evidence(exceeded, 0.9, mask)
    assert coverage_evidence(torch.where(mask, exceeded, ~exceeded), 0.9, mask) == first
    assert coverage_evidence(exceeded[:59], 0.9, mask[:59]) == 1.0
    assert uniformity(u[:59]).evidence == 1.0


def test_the_level_is_the_median_assets():
    before = torch.tensor([[1.0, 2.0, torch.nan, 1.0], [1.0, 4.0, torch.nan, 1.0], [1.0, 2.0, torch.nan, 1.0]])
    assert level_ratio(torch.tensor([3.0, 2.0, 5.0, 2.0]), before) == 2.0
    assert level_ratio(torch.tensor([torch.nan, 1.0, 2.0, torch.nan]), before * torch.nan) == 1.0


def record(returns: torch.Tensor, var: float) -> Record:
    same = {0.9: torch.full_like(returns, var / 2), 0.99: torch.full_like(returns, var)}
    return Record(returns, same, same)


def test_readings_say_what_is_beyond_which_limit():
    u = dependent(1, 250, 20, rho=0.4, seed=4)[0]
    right = record(torch.special.ndtri(u), 2.326)
    tonight = torch.full((20,), 2.326, dtype=torch.float64)
    assert [each.alarm for each in read_drift(DriftConfig(), u, right, tonight)] == [False] * 3
    wrong = record(2 * torch.special.ndtri(u), 2.326)
    outcomes = torch.special.ndtr(2 * torch.special.ndtri(u))
    readings = read_drift(DriftConfig(), outcomes, wrong, 3 * tonight)
    assert [each.alarm for each in readings] == [True] * 3
    assert [each.name for each in readings] == ["uniformity", "volatility", "coverage"]
    assert not any(each.holds for each in readings)
    assert "3.00 times that of the 5 nights before" in readings[1].words
    assert read_drift(DriftConfig(), outcomes, wrong, tonight / 3)[1].alarm
    off = DriftConfig(
        uniformity=UniformityDrift("off"), volatility=VolatilityDrift("off"), coverage=CoverageDrift("hold")
    )
    (only,) = read_drift(off, outcomes, wrong, tonight)
    assert only.holds
    assert only.plain()["values"]["evidence"] > 100


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DriftConfig(sessions=20),
        lambda: DriftConfig(volatility=VolatilityDrift(ratio=1.0)),
        lambda: DriftConfig(coverage=CoverageDrift(evidence=-1.0)),
        lambda: DriftConfig(uniformity=UniformityDrift(distance=1.0)),
    ],
)
def test_limits_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="out of bounds"):
        wrong()
