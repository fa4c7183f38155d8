"""Value at risk and expected shortfall of mixtures of any two kinds of forecasters."""

from itertools import combinations_with_replacement

import pytest
import torch
from scipy import stats
from torch.distributions import Normal

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
    """The value at risk is the least value whose mass reaches 1 - level; the shortfall (1/p) int_0^p icdf."""
    parts = [forecasts[name] for name in pair]
    forecast = mixed(parts, [0.3, 0.7])
    laws = list(zip((0.3, 0.7), [part.distribution for part in parts], strict=True))
    q = -forecast.value_at_risk(0.975)
    below, above = (sum(w * law.cdf(q + move).double() for w, law in laws) for move in (-1e-7, 1e-7))
    assert (below <= 0.025 * (1 + 1e-6)).all()
    assert (above >= 0.025 * (1 - 1e-6)).all()
    before = sum(w * partial_mean(law, q - 1e-7).double() for w, law in laws)
    shortfall = -(before + q * (0.025 - below)) / 0.025  # of an atom at q what is left of p
    torch.testing.assert_close(forecast.expected_shortfall(0.975), shortfall, rtol=1e-6, atol=1e-9)
    assert (forecast.expected_shortfall(0.975) > -q).all()


def of_atoms(values, masses, p):
    """Quantile and (1/p) int_0^p icdf of atoms, by sorting them all and taking mass from the least on."""
    values, order = values.sort()
    masses = masses[order]
    total = masses.cumsum(0)
    last = int((total >= p - 1e-12).nonzero()[0])
    taken = (p - (total - masses)).clamp(min=0).minimum(masses)
    return values[last], (values * taken).sum() / p


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
    p = torch.tensor([[0.025], [0.05], [0.3]], dtype=torch.float64)  # of whole numbers of values
    both = Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), stack([law, law]))
    assert torch.equal(both.icdf(p), law.icdf(p))
    torch.testing.assert_close(tail_mean(both, p), tail_mean(law, p))
    single = Empirical(law.values.float())
    moved = Affine(single, 0.001, 0.0137)
    mixture = Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), stack([moved, moved]))
    torch.testing.assert_close(mixture.icdf(p), moved.icdf(p).double(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(tail_mean(mixture, p), tail_mean(moved, p).double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("probability", [0.1, 0.2, 0.05, 0.63, 0.95, 1 - 1e-9])
@pytest.mark.parametrize("masses", [None, [0.3, 0.1, 0.0, 0.2, 0.1, 0.1, 0.1, 0.04, 0.06, 0.0]])
def test_a_law_with_ties_mixed_with_itself_takes_part_of_an_atom(masses, probability):
    values = torch.tensor([-1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 2.0], dtype=torch.float64)
    weights = None if masses is None else torch.tensor(masses, dtype=torch.float64)
    law = Empirical(values, weights)
    both = Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), stack([law, law]))
    each = torch.full((10,), 0.1, dtype=torch.float64) if weights is None else weights
    q, mean = of_atoms(values, each, probability)
    p = torch.tensor(probability, dtype=torch.float64)
    torch.testing.assert_close(both.icdf(p), q, rtol=0, atol=1e-17)
    torch.testing.assert_close(tail_mean(both, p), mean, rtol=1e-12, atol=1e-12)
    if weights is None and probability in (0.1, 0.2):
        torch.testing.assert_close(tail_mean(both, p), tail_mean(law, p))


@pytest.mark.parametrize("probability", [0.05, 0.4])
def test_tail_means_of_atoms_differentiate_in_weights_and_components(probability):
    """Against a central difference in all at once, at quantiles on atoms, which move, and beside them."""
    atoms = torch.tensor([-1.0, -0.3, 0.0, 0.0, 0.0, 0.1, 0.2, 0.7], dtype=torch.float64)

    def shortfall(w, loc, scale):
        moved = Affine(Empirical(atoms), loc[0], scale[0])
        return tail_mean(Mixture(w, stack([moved, Normal(loc[1], scale[1]), moved])), probability)

    given = [[0.3, 0.5, 0.2], [0.1, -0.1], [1.5, 0.8]]
    parameters = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in given]
    moves = [torch.tensor(x, dtype=torch.float64) for x in ([1.0, -0.4, 0.3], [0.7, -0.5], [-0.6, 0.9])]
    gradients = torch.autograd.grad(shortfall(*parameters), parameters)
    slope = sum((gradient * move).sum() for gradient, move in zip(gradients, moves, strict=True))
    with torch.no_grad():
        ends = [shortfall(*(x + h * move for x, move in zip(parameters, moves, strict=True))) for h in (-1e-6, 1e-6)]
    torch.testing.assert_close(slope, (ends[1] - ends[0]) / 2e-6, rtol=1e-6, atol=1e-8)
    loc = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    law = Affine(Empirical(atoms), loc, 1.5)
    both = Mixture(torch.tensor([0.4, 0.6], dtype=torch.float64), stack([law, law]))
    torch.testing.assert_close(torch.autograd.grad(tail_mean(both, probability), loc)[0].item(), 1.0)


@pytest.mark.parametrize("mass", [1e-6, 1e-9])
def test_far_quantiles_beside_an_atom(mass):
    """Of a half of a density beside a half at 0, on both sides: those of twice the mass."""
    zero, half = Empirical(torch.zeros(1, dtype=torch.float64)), torch.tensor([0.5, 0.5], dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    p = torch.tensor([mass, 1 - mass], dtype=torch.float64)
    for smooth, law in ((Normal(0 * one, one), stats.norm()), (StudentT(4 * one, 0.0, 1.0), stats.t(4.0))):
        expected = torch.tensor([law.ppf(2 * mass), law.isf(2 * (1 - p[1].item()))], dtype=torch.float64)
        torch.testing.assert_close(Mixture(half, stack([zero, smooth])).icdf(p), expected, rtol=1e-6, atol=0)


def test_a_rare_atom_is_the_quantile_of_less_than_its_mass():
    masses = torch.tensor([1 - 1e-8, 1e-8, 0.0], dtype=torch.float64)
    rare = Empirical(torch.tensor([0.0, 5.0, 9.0], dtype=torch.float64), masses)
    p = torch.tensor([0.5, 1 - 3e-8, 1 - 1e-9, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0, 5.0, 5.0], dtype=torch.float64)
    assert torch.equal(rare.icdf(p), expected)
    both = Mixture(torch.tensor([0.5, 0.5], dtype=torch.float64), stack([rare, rare]))
    torch.testing.assert_close(both.icdf(p), expected, rtol=0, atol=1e-17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masses_of_whole_numbers_of_values_mean_those_numbers(dtype):
    """In the digits of the masses and of the weights, on both sides."""
    values = torch.arange(500.0, dtype=torch.float64)
    law = Empirical(values)
    both = Mixture(torch.tensor([0.3, 0.7], dtype=dtype), stack([law, law]))
    p = torch.tensor([0.01, 0.05, 0.31, 0.5, 0.95, 0.99, 0.998], dtype=dtype)
    torch.testing.assert_close(both.icdf(p), values[[4, 24, 154, 249, 474, 494, 498]].to(dtype), rtol=0, atol=1e-12)


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
    below = 0.5 * smooth.cdf(torch.tensor(-1.0)).double()
    torch.testing.assert_close(
        tail_mean(law, at), (0.5 * smooth.partial_mean(torch.tensor(-1.0)).double() - (at - below)) / at
    )
    x = torch.tensor([-2.0, -1.0, 0.5, torch.nan], dtype=torch.float64)
    values = torch.tensor([-3.0, 0.5, -1.0, 7.0], dtype=torch.float64)
    expected = torch.tensor([-0.75, -1.0, -0.875, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(Empirical(values).partial_mean(x), expected, equal_nan=True)
