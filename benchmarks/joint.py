"""Joint one-day forecasts of the sample's 20 stocks: copulas on one set of marginals, beside past days and GJR-FHS.

The protocol of risk_accuracy.py: the last 1,500 sessions; the default forecaster is trained once before them, from one
seed. Every 63 sessions a copula is fitted to the transforms of the sessions before, weighted by a half-life. Models:

* GJR-FHS: joint filtered historical simulation, each asset's own GJR-GARCH refitted every 21 rows; a scenario is one
  past date's residuals of all assets together times tonight's volatilities, of the last 1,000 dates;
* independent: our marginals, independent;
* past transforms: our marginals and the last 1,000 transform vectors (`qtorch.risk.rolling_scenarios`);
* Gaussian, t copula: our marginals and quasi-random scenarios of the fitted copula;
* pooled: half of the scenarios from the t copula, half past transforms, a mixture of the two dependences;
* DCC: joint filtered historical simulation by the same GJR-GARCH filters and Engle's DCC(1,1), fitted every 63 rows by
  composite likelihood: the last 1,000 residual vectors, whitened by their day's correlations, given tonight's;
* learned: one network of marginals and a t copula, from states and embeddings of the assets, trained once before the
  test by the joint log score, and quasi-random scenarios of its own law of each session.

Prints for each the energy score in per cent (fair, of 500 scenarios), the joint log score in nats where there is a
density, and the FZ0 loss of 21 portfolios: equal weights, and 20 long-short ones with normal weights of a fixed seed
that sum to 1 in absolute value. t is Diebold and Mariano's against GJR-FHS, negative where the model is better; for 20
portfolios that of their mean difference by date.

With --until the data end earlier, which is how settings are chosen: on the sessions before those of the test.

Usage: python benchmarks/joint.py [--data FILE] [--until 2017-01-12] [--factors 5] [--half-life 250] [--choose]
    [--only DCC learned]
"""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain, product
from typing import Any

import numpy as np
import torch
from dcc import DCC, recoloured, whitened
from joint_learned import labelled_windows, learned
from protocol import LEVELS, market, outcomes, parser, tails_of
from risk_accuracy import DAY, GJR_FHS
from torch import Tensor
from torch.distributions import Distribution, Normal

from qtorch.data import Panel, PanelWindowSource, WindowSource
from qtorch.distributions import Empirical, GaussianCopula, JointDistribution, StudentTCopula, take
from qtorch.forecast import Forecast
from qtorch.models import default_forecaster, default_windows
from qtorch.models.baselines.request import Request
from qtorch.risk import QuantileTable, complete, energy_score, fit_copula, fz0, quasi_random_scenarios
from qtorch.risk.backtests import diebold_mariano
from qtorch.training import refit

PAST, FITTED, EVERY, COUNT, PORTFOLIOS = 1000, 2000, 63, 2048, 20
WHOLE = ("DCC", "learned")
Copula = GaussianCopula | StudentTCopula
Scenarios = Callable[[int], Tensor]


class Market:
    """Forecasts and outcomes of the test's sessions, `D` of them, and transforms from `FITTED` sessions before on."""

    def __init__(self, panel: Panel, seed: int) -> None:
        rows, _ = outcomes(panel)
        self.panel, self.asked, self.seed = panel, rows - 1, seed
        self.request = Request.of(panel, panel.dates[self.asked], DAY, None, 60, 5)  # as of forecasts
        self.returns = torch.where(self.request.valid, panel.returns()[rows], torch.nan)

    @cached_property
    def forecast(self) -> Forecast:
        """Of the default forecaster, from `FITTED` sessions before the test on."""
        source = WindowSource(self.panel, default_windows(self.panel, horizons=(1,)))
        make = partial(default_forecaster, self.panel, horizons=(1,))
        model = refit(make, source, int(self.asked[0]), self.seed)
        every = np.arange(self.asked[0] - FITTED, self.asked[-1] + 1)
        return model.forecast(self.panel, self.panel.dates[every], source=source)

    @cached_property
    def pit(self) -> Tensor:
        """The transforms of what came of them."""
        every = np.arange(self.asked[0] - FITTED, self.asked[-1] + 1)
        return self.forecast.pit(self.panel.returns()[every + 1][:, None])[:, 0]

    @cached_property
    def marginals(self) -> Distribution:
        """Those of the test."""
        return take(self.forecast.distribution, (slice(FITTED, None), 0))

    @cached_property
    def table(self) -> QuantileTable:
        """Their quantiles."""
        return QuantileTable(self.marginals)

    def __len__(self) -> int:
        return len(self.returns)

    def fits(self, factors: int, half_life: float, gaussian: bool) -> list[Copula]:
        """A copula for each `EVERY` sessions, of what was known before the first of them."""
        found: list[Copula] = []
        weights = 0.5 ** (torch.arange(FITTED, 0, -1, dtype=torch.float64) / half_life)
        for d in range(0, len(self), EVERY):
            start = found[-1] if found else None
            past = self.pit[d : d + FITTED]  # the last is of the session before d
            found.append(fit_copula(past, factors, weights, gaussian=gaussian, start=start))
        return found

    def log_scores(self, fits: list[Copula] | None) -> Tensor:
        """Minus the joint log densities in nats, `[D]`; None for independence."""
        there = self.returns.isfinite()
        x = torch.where(there, self.returns, 0.0)
        own = torch.where(there, self.marginals.log_prob(x), 0.0).sum(1)
        if fits is None:
            return -own
        scores = JointDistribution(self.marginals, fits[0]).scores(x)
        blocks = zip(fits, scores.split(EVERY), there.split(EVERY), strict=True)
        return -own - torch.cat([copula.log_prob_of_scores(s, mask) for copula, s, mask in blocks])

    def from_copulas(self, fits: list[Copula]) -> Scenarios:
        """Quasi-random scenarios of a session, of the copula of its block."""
        N = self.returns.shape[1]
        normal = Normal(torch.zeros(N, dtype=torch.float64), 1.0)  # whose returns are the normal scores
        drawn = [quasi_random_scenarios(JointDistribution(normal, c), COUNT, randomisations=1)[0] for c in fits]
        places = [self.table.places(scores) for scores in drawn]
        return lambda d: self.table.returns(d, *places[d // EVERY]).T

    def from_past(self) -> Scenarios:
        """The last transforms, holes filled by a copula of those before the test."""
        filled = complete(self.pit, torch.Generator().manual_seed(0), fit=self.pit[:FITTED])
        low, part = self.table.places(torch.special.ndtri(filled))
        rows = [slice(d + FITTED - PAST, d + FITTED) for d in range(len(self))]
        return lambda d: self.table.returns(d, low[:, rows[d]], part[:, rows[d]]).T

    def from_residuals(self) -> Scenarios:
        """Joint filtered historical simulation."""
        scenarios = torch.zeros(len(self), PAST, self.returns.shape[1], dtype=torch.float64)
        for piece in GJR_FHS.filter.filtered(self.request):
            residuals, mu = piece.latest(slice(None), PAST), piece.theta.mu
            values = mu.unsqueeze(-1) + piece.tonight.sqrt().unsqueeze(-1) * residuals
            scenarios[piece.dates] = values.mT
        return lambda d: scenarios[d]

    def from_dcc(self) -> Scenarios:
        """The same, with the residuals' correlations of their own days turned into tonight's."""
        scenarios = torch.zeros(len(self), PAST, self.returns.shape[1], dtype=torch.float64)
        pieces = sorted(GJR_FHS.filter.filtered(self.request), key=lambda piece: int(piece.dates.min()))
        dcc, fitted_at = None, -EVERY
        for piece in pieces:
            dates = piece.dates.sort()
            first, count = int(dates.values[0]), len(dates.values)
            # In the order of time: the residuals up to the last night of the piece, which has one known for each night.
            z = piece.latest(dates.indices[-1:], FITTED + count - 1)[0].flip(-1).T
            if first - fitted_at >= EVERY:  # refits are every 21 rows, of which every third is one of the DCC
                dcc, fitted_at = DCC.fitted(z[:FITTED], dcc), first
                print(f"{'':<16} DCC of {first}: a {dcc.a:.4f}, b {dcc.b:.4f}", flush=True)
            path = dcc.path(z)
            white = whitened(z, path[:-1])
            tonight = piece.tonight[dates.indices].sqrt()
            for k in range(count):
                past = recoloured(white[FITTED + k - PAST : FITTED + k], path[FITTED + k])
                scenarios[first + k] = piece.theta.mu + tonight[k] * past
        if not scenarios.isfinite().all():
            raise ValueError("an asset has too few residuals for DCC scenarios; give data with longer histories.")
        return lambda d: scenarios[d]

    def from_learned(self, factors: int, width: int, seed: int) -> tuple[Scenarios, Tensor]:
        """Scenarios and minus joint log densities of a network trained on what was known before the test."""
        spec = labelled_windows(self.panel)
        source = PanelWindowSource(self.panel, spec)
        model = refit(lambda: learned(self.panel, spec, factors, width), source, int(self.asked[0]), seed)
        forecast = model.forecast(self.panel, self.panel.dates[self.asked], source=source)
        law: Any = take(forecast.distribution, (slice(None), 0))
        there = self.returns.isfinite()
        print(f"{'':<16} learned copulas: df {law.copula.df.min():.1f} to {law.copula.df.max():.1f}", flush=True)

        def scenarios(d: int) -> Tensor:
            night: Any = take(law, d)
            return quasi_random_scenarios(night, COUNT, randomisations=1)[0]

        return scenarios, -law.log_prob(torch.where(there, self.returns, 0.0), there)


def scores(market: Market, scenarios: Scenarios, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Energy scores `[D]` and FZ0 losses of portfolios `[levels, D, P]`."""
    energy, losses = [], []
    generator = torch.Generator().manual_seed(1)
    for d, y in enumerate(100 * market.returns):
        there, x = y.isfinite(), 100 * scenarios(d)
        # At random: every so manyth of a Sobol sequence lies in a corner of the cube.
        some = x[torch.randperm(len(x), generator=generator)[:500]][:, there]
        energy.append(energy_score(some, y[there], fair=True))
        held = torch.where(there, weights, 0.0)
        law = Empirical((held @ x.T).unsqueeze(0) / 100)
        var, es = tails_of(law)
        profit = held @ y.nan_to_num()
        losses.append(torch.stack([fz0(profit, v[0], e[0], a) for v, e, a in zip(var, es, LEVELS, strict=True)]))
    return torch.stack(energy), torch.stack(losses, dim=1)


def t(difference: Tensor) -> float:
    """Diebold and Mariano's, of differences `[D]` or, of their mean by date, `[D, P]`."""
    return float(diebold_mariano(difference, panel=difference.ndim > 1).statistic)


def choose(market: Market) -> None:
    """Prints what copulas of some settings add to the joint log score of independence."""
    alone = market.log_scores(None)
    for factors, half_life in product((1, 3, 5), (250.0, 500.0, 1000.0)):
        fits = market.fits(factors, half_life, gaussian=False)
        gain = (alone - market.log_scores(fits)).mean()
        df = float(getattr(fits[-1], "df", torch.inf))
        print(f"factors {factors}, half-life {half_life:.0f}: {gain:+.4f} nats a session, df {df:.1f}", flush=True)


def models(market: Market, factors: int, half_life: float) -> Iterator[tuple[str, Scenarios, Tensor | None]]:
    """Names, scenarios and joint log scores of those that are fitted to transforms of one set of marginals."""
    N = market.returns.shape[1]
    nothing: list[Copula] = [GaussianCopula(torch.zeros(N, 0, dtype=torch.float64))] * -(-len(market) // EVERY)
    yield "independent", market.from_copulas(nothing), market.log_scores(None)
    past = market.from_past()
    yield "past transforms", past, None
    fits = market.fits(factors, half_life, gaussian=True)
    yield "Gaussian copula", market.from_copulas(fits), market.log_scores(fits)
    fits = market.fits(factors, half_life, gaussian=False)
    fitted = market.from_copulas(fits)
    yield "t copula", fitted, market.log_scores(fits)
    yield "pooled", lambda d: torch.cat((fitted(d)[:PAST], past(d))), None


def whole(market: Market, only: Sequence[str], args: Namespace) -> Iterator[tuple[str, Scenarios, Tensor | None]]:
    """The same of those with marginals of their own."""
    if "DCC" in only:
        yield "DCC", market.from_dcc(), None
    if "learned" in only:
        yield "learned", *market.from_learned(args.factors, args.width, args.seeds[0])


def main() -> None:
    settings = parser(__doc__)
    settings.add_argument("--factors", type=int, default=5)
    settings.add_argument("--half-life", type=float, default=250.0, help="of the fit's weights, in sessions")
    settings.add_argument("--width", type=int, default=8, help="of the learned model's embeddings")
    settings.add_argument("--only", nargs="+", choices=WHOLE, help="beside GJR-FHS; all models by default")
    settings.add_argument("--choose", action="store_true", help="print joint log scores of settings, and no more")
    args = settings.parse_args()
    asked = Market(Panel.from_frame(market(args.data, args.until)), args.seeds[0])
    N = asked.returns.shape[1]
    print(f"{N} assets, {len(asked)} sessions to {asked.panel.dates[-1]:%Y-%m-%d}", flush=True)
    if args.choose:
        choose(asked)
        return
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(PORTFOLIOS, N, generator=generator, dtype=torch.float64)
    weights = torch.cat((torch.full((1, N), 1 / N), mixed / mixed.abs().sum(1, keepdim=True)))
    base: tuple[Tensor, Tensor] | None = None
    base_line = iter([("GJR-FHS", asked.from_residuals(), None)])
    joined = () if args.only else models(asked, args.factors, args.half_life)
    for name, scenarios, log_score in chain(base_line, joined, whole(asked, args.only or WHOLE, args)):
        energy, losses = scores(asked, scenarios, weights)
        base = (energy, losses) if base is None else base
        line = f"{name:<16} energy {energy.mean():.4f} (t {t(energy - base[0]):+.1f})"
        if log_score is not None:
            line += f"  minus log density {log_score.mean():.3f}"
        print(line)
        for k, level in enumerate(LEVELS):
            equal, others = losses[k][:, 0], losses[k][:, 1:]
            line = f"{'':<16} {level:.1%} FZ0 equal weight {equal.mean():.4f} (t {t(equal - base[1][k][:, 0]):+.1f})"
            difference = others - base[1][k][:, 1:]
            better = int((difference.mean(0) < 0).sum())
            line += f"  long-short {others.mean():.4f} (t {t(difference):+.1f}, better on {better} of {PORTFOLIOS})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
