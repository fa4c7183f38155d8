"""The cost of a long backtest: the default forecaster, trained once, beside GJR-GARCH refitted with arch.

Simulates a market of GJR-GARCH series, trains the default forecaster on all that is known before the last sessions,
forecasts each of these for every asset, and takes values at risk and expected shortfalls at three levels. The other
way refits GJR-GARCH with skewed errors on 2,000 returns of each asset every 21 sessions; some such fits are timed in
between, and their mean stands for all (the `sample` extra has arch). What arch needs to filter and forecast
between its fits is not counted.

Usage: OMP_NUM_THREADS=1 python benchmarks/backtest_cost.py [--assets 500] [--sessions 1500] [--arch 50]
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice

import numpy as np
from arch import arch_model
from garch_series import market, simulate

from qtorch.data import Panel, WindowSource
from qtorch.models import default_forecaster, default_windows
from qtorch.training import refit

LEVELS, REFIT_EVERY, FITTED = (0.95, 0.975, 0.99), 21, 2000


class Clock:
    """Prints what each part takes in processor time and by the clock, and adds the former up.

    Between the parts it times fits with arch, so that other work on the machine slows both ways alike.

    Args:
        fits: with arch, after each part.
    """

    def __init__(self, fits: int) -> None:
        self.cpu, self.arch, self.fits = 0.0, 0.0, fits
        self._models = iter(arch_model(y, mean="Constant", o=1, dist="skewt", rescale=False) for y in fitted(5 * fits))
        next(self._models).fit(disp="off")  # what a first fit costs is not the fits'

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what runs inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.cpu += cpu
        print(f"{name:<12} {cpu:7.1f} CPU s {wall:7.1f} s", flush=True)
        cpu = time.process_time()
        for model in islice(self._models, self.fits):
            model.fit(disp="off")
        self.arch += time.process_time() - cpu


def fitted(count: int) -> Iterator[np.ndarray]:
    """Returns of so many series and one more, in per cent."""
    return iter(simulate(FITTED, count + 1).numpy().T)


def backtest(assets: int, sessions: int, history: int, fits: int) -> tuple[float, float]:
    """The processor seconds of the default forecaster's backtest, and those of a fit with arch."""
    clock, closes = Clock(fits), market(history + sessions, assets, seed=1)
    with clock.part("panel"):
        panel = Panel.from_frame(closes, exchange="24/5")
    rows = np.arange(len(panel.dates) - sessions, len(panel.dates)) - 1
    with clock.part("features"):
        source = WindowSource(panel, default_windows(panel))
    with clock.part("training"):
        model = refit(partial(default_forecaster, panel), source, int(rows[0]), 0)
    with clock.part("forecasting"):
        forecast = model.forecast(panel, panel.dates[rows], source=source)
    with clock.part("measures"):
        measured = [(forecast.value_at_risk(level), forecast.expected_shortfall(level)) for level in LEVELS]
    print(forecast)
    days = panel.returns()[rows + 1].double()
    beyond = [(days < -var[:, 0]).double().mean().item() for var, _ in measured]
    print("beyond " + ", ".join(f"{share:.2%} at {level:.1%}" for share, level in zip(beyond, LEVELS, strict=True)))
    return clock.cpu, clock.arch / (5 * fits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=1500, help="out of sample")
    parser.add_argument("--history", type=int, default=2100, help="sessions before them")
    parser.add_argument("--arch", type=int, default=50, help="fits with arch that are timed, in five parts")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="arch")
    ours, fit = backtest(args.assets, args.sessions, args.history, -(-args.arch // 5))
    fits = args.assets * -(-args.sessions // REFIT_EVERY)
    print(
        f"default forecaster: {ours:.1f} CPU s; arch: {fits:,} fits of {1e3 * fit:.1f} CPU ms, {fits * fit:,.0f} CPU s"
    )
    print(f"ratio {fits * fit / ours:.1f}")


if __name__ == "__main__":
    main()
