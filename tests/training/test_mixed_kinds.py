"""Value at risk and expected shortfall of mixtures of any two kinds of forecasters."""

from itertools import combinations_with_replacement

import pytest
import torch

from qtorch.data import WindowSpec
from qtorch.distributions import Affine, Empirical, Mixture, Posterior, StudentT, partial_mean, stack, tail_mean
from qtorch.models import HAR, FilteredHistoricalSimulation, Garch, HistoricalSimulation, RiskMetrics
from qtorch.training import Ensemble, mixed
from tests.training.runs import SPEC, small_model, small_panel

TWO = WindowSpec(horizons=SPEC.horizons)
KINDS = {
    "network": lambda: small_model().eval(),
    "ensemble": lambda: Ensemble([RiskMetrics(TWO), HistoricalSimulation(window=60, spec=TWO)], [2.0, 1.0]),
    "riskmetrics": lambda: RiskMetrics(TWO),
    "garch": lambda: Garch(least=50, window=200, spec=TWO),
    "historical": lambda: HistoricalSimulation(window=250, spec=TWO),
    "filtered": lambda: FilteredHistoricalSimulation(spec=TWO),
    "har": lambda: HAR(least=50, window=200, spec=TWO),
}


@pytest.fixture(scope="module")
def forecasts():
    panel = small_panel()
    return {name: make().forecast(panel, panel.dates[-1:]) for name, make in KINDS.items()}


SLOW = [("network", name) for name in ("ensemble", "filtered", "har")]  # as ("network", "historical"), which stays


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, marks=pytest.mark.slow if pair in SLOW else ())
        for pair in combinations_with_replacement(KINDS, 2)
    ],
)
def test_tails_of_every_pair(forecasts, pair):
    """The value at risk is the least value whose mass reaches 1 - level; the shortfall the mean up to it."""
    parts = [forecasts[name] for name in pair]
    forecast = mixed(parts, [0.3, 0.7])
    laws = list(zip((0.3, 0.7), [part.distribution for part in parts], strict=True))
    q = -forecast.value_at_risk(0.975)
    below, mass, above = (sum(w * law.cdf(q + move).double() for w, law in laws) for move in (-1e-7, 0.0, 1e-7))
    assert (below <= 0.025 * (1 + 1e-6)).all()
    assert (above >= 0.025 * (1 - 1e-6)).all()
    tail = sum(w * partial_mean(law, q).double() for w, law in laws)
    torch.testing.assert_close(forecast.expected_shortfall(0.975), -tail / mass, rtol=1e-6, atol=1e-9)
    assert (forecast.expected_shortfall(0.975) > -q).all()


def of_atoms(values, masses, p):
    """Quantile and tail mean of atoms, by sorting them all."""
    values, order = values.sort()
    masses = masses[order]
    total = masses.cumsum(0)
    last = int((total >= p - 1e-12).nonzero()[0])
    whole = values <= values[last]
    return values[last], (values * masses)[whole].sum() / masses[whole].sum()


@pytest.mark.parametrize("sizes", [(500, 200), (500, 500), (37, 1)])
@pytest.mark.parametrize("probability", [0.01, 0.05, 0.123, 0.5, 0.97])
def test_mixtures_of_atoms_are_exact(sizes, probability):
    generator = torch.Generator().manual_seed(3)
    draws = [0.01 * torch.randn(4, size, generator=generator) for size in sizes]
    draws[0][1] = (200 * draws[0][1]).round() / 200  # ties, and atoms at 0
    draws[0][2, 20:] = torch.nan
    weights = torch.tensor([0.35, 0.65], dtype=torch.float64)
    law = Posterior(weights, stack([Empirical(x) for x in draws]))
    p = torch.tensor(probability, dtype=torch.float64)
    for b in range(4):
        there = [x[b][~x[b].isnan()].double() for x in draws]
        masses = [torch.full_like(x, float(w) / len(x)) for x, w in zip(there, weights, strict=True)]
        q, mean = of_atoms(torch.cat(there), torch.cat(masses), probability)
        torch.testing.assert_close(law.icdf(p)[b], q, rtol=0, atol=1e-17)
        torch.testing.assert_close(tail_mean(law, p)[b], mean, rtol=1e-12, atol=1e-17)


def test_an_empirical_law_mixed_with_itself_or_moved_is_as_it_was():
    generator = torch.Generator().manual_seed(0)
    law = Empirical(torch.randn(3, 40, generator=generator, dtype=torch.float64))
    p = torch.tensor([[0.025], [0.05], [0.31]], dtype=torch.float64)
    both = Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), stack([law, law]))
    assert torch.equal(both.icdf(p), law.icdf(p))
    torch.testing.assert_close(tail_mean(both, p), tail_mean(law, p))
    single = Empirical(law.values.float())
    moved = Affine(single, 0.001, 0.0137)
    mixture = Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), stack([moved, moved]))
    torch.testing.assert_close(mixture.icdf(p), moved.icdf(p).double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(tail_mean(mixture, p), tail_mean(moved, p).double(), rtol=1e-6, atol=1e-9)


def test_an_atom_inside_a_density():
    """A half of mass at -1 beside a Student-t: below it, at it and above it."""
    smooth = StudentT(torch.tensor(5.0, dtype=torch.float64), 0.0, 1.0)
    law = Mixture(
        torch.tensor([0.5, 0.5], dtype=torch.float64),
        stack([Empirical(torch.tensor([-1.0], dtype=torch.float64)), smooth]),
    )
    p = torch.tensor([0.05, 0.8], dtype=torch.float64)
    torch.testing.assert_close(law.cdf(law.icdf(p)), p, rtol=3e-7, atol=0.0)
    at = torch.tensor([0.15, 0.3, 0.58], dtype=torch.float64)  # of masses from 0.5 F(-1) = 0.091 to 0.591
    torch.testing.assert_close(law.icdf(at), torch.full_like(at, -1.0), rtol=0.0, atol=0.0)
    tail = 0.5 * smooth.partial_mean(torch.tensor(-1.0)) - 0.5
    torch.testing.assert_close(tail_mean(law, at), (tail / law.cdf(torch.tensor(-1.0))).expand(3))
    x = torch.tensor([-2.0, -1.0, 0.5, torch.nan], dtype=torch.float64)
    values = torch.tensor([-3.0, 0.5, -1.0, 7.0], dtype=torch.float64)
    expected = torch.tensor([-0.75, -1.0, -0.875, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(Empirical(values).partial_mean(x), expected, equal_nan=True)
