"""Batched GARCH against arch, one process: the time of a fit, what it finds, and the cost of a long backtest.

Simulates GJR-GARCH series with Hansen's skewed errors, fits all with `Garch(o=1, errors="skewed_t")` and some of
them with arch (the `sample` extra has it), then forecasts a panel of such series at many dates with refits every 21.

Usage: OMP_NUM_THREADS=1 python benchmarks/garch.py [--series 1000] [--arch 100] [--assets 500] [--dates 1500]
"""

import argparse
import time
import warnings

import numpy as np
from garch_series import market, simulate

from qtorch.data import Panel, WindowSpec
from qtorch.models import Garch

MODEL = Garch(o=1, errors="skewed_t", spec=WindowSpec(horizons=(1,)))


def fits(series: int, compared: int) -> None:
    returns = simulate(2000, series)
    MODEL.estimate(returns[:, :8])  # what a first call costs is not the fits'
    wall, cpu = time.perf_counter(), time.process_time()
    fit = MODEL.estimate(returns)
    ours = (time.perf_counter() - wall) / series, (time.process_time() - cpu) / series
    evaluations = fit.iterations.double()
    print(
        f"Garch: {series} series of 2,000 returns, {ours[0] * 1e3:.2f} ms a series ({ours[1] * 1e3:.2f} CPU), "
        f"{int(fit.converged.sum())} converged, {evaluations.mean():.1f} evaluations (most {int(evaluations.max())})"
    )
    if not compared:
        return
    from arch import arch_model

    gains = []
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(compared):
        model = arch_model(returns[:, n].numpy(), mean="Constant", p=1, o=1, q=1, dist="skewt", rescale=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gains.append(fit.log_likelihood[n].item() - model.fit(disp="off", show_warning=False).loglikelihood)
    theirs = (time.perf_counter() - wall) / compared, (time.process_time() - cpu) / compared
    difference = np.array(gains)
    print(
        f"arch:  {compared} of them, {theirs[0] * 1e3:.1f} ms a series ({theirs[1] * 1e3:.1f} CPU): "
        f"{theirs[0] / ours[0]:.1f} times ours ({theirs[1] / ours[1]:.1f} in CPU time)"
    )
    print(
        f"log-likelihood, ours minus arch's: least {difference.min():.2g}, median {np.median(difference):.2g}, most "
        f"{difference.max():.2g}; {(np.abs(difference) < 1e-3).sum()} of {compared} within .001"
    )


def backtest(assets: int, dates: int) -> None:
    panel = Panel.from_frame(market(2000 + dates + 1, assets, seed=1), exchange="24/5")
    refits = -(-dates // MODEL.refit_every)
    wall, cpu = time.perf_counter(), time.process_time()
    forecast = MODEL.forecast(panel, panel.dates[-dates:])
    seconds = time.perf_counter() - wall
    print(f"backtest: {forecast}")
    print(
        f"{refits} refits of {assets} assets, {refits * assets} fits, in {seconds:.0f} s "
        f"({time.process_time() - cpu:.0f} CPU), {seconds / (refits * assets) * 1e3:.2f} ms a fit with the filtering"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--arch", type=int, default=100, help="series that arch fits too; 0 without arch")
    parser.add_argument("--assets", type=int, default=500)
    parser.add_argument("--dates", type=int, default=1500)
    args = parser.parse_args()
    fits(args.series, args.arch)
    backtest(args.assets, args.dates)


if __name__ == "__main__":
    main()
