"""How often the gates of the nightly job give an alarm at their defaults on the sample market's last 500 nights.

A model is trained once, before the sessions whose forecasts are looked at; each night's gates then see what they would
have seen that night.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning
import numpy as np
import torch

from qtorch.configuration import fit_options, make_forecaster, make_windows
from qtorch.data import WindowSource
from qtorch.forecast import Forecast
from qtorch.nightly import NightlyConfig
from qtorch.nightly.config import NightlyData, NightlyTraining, RiskConfig
from qtorch.nightly.data_gates import read_gates
from qtorch.nightly.drift import read_drift
from qtorch.nightly.gates import read_panel, states_of
from qtorch.nightly.record import Record
from qtorch.nightly.slices import judge
from qtorch.training import fit
from qtorch.training.forecasting import evaluate


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/markets.parquet")
    parser.add_argument("--nights", type=int, default=500)
    parser.add_argument("--as-of", help="the last night, YYYY-MM-DD; the data's last by default")
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        config = NightlyConfig(
            NightlyData(given.data),
            training=NightlyTraining(max_epochs=given.epochs),
            risk=RiskConfig(backtest_sessions=given.nights + 250),
            output=str(Path(folder)),
        )
        alarms, nights, values = _alarms(config, given.as_of, given.nights)
    print(f"{nights} nights, {config.drift.sessions} sessions of drift")
    for name, days in alarms.items():
        runs = int((np.diff(np.array([False, *days]).astype(int)) == 1).sum())
        spread = np.nanquantile(np.array(values[name], dtype=float), [0, 0.5, 0.99, 1])
        print(
            f"{name:<18} {sum(days):4d} alarms = {sum(days) / nights:6.2%} of nights, in {runs} runs; "
            f"least {spread[0]:.3g}, median {spread[1]:.3g}, 99 % {spread[2]:.3g}, greatest {spread[3]:.3g}"
        )


def _alarms(
    config: NightlyConfig, as_of: str | None, nights: int
) -> tuple[dict[str, list[bool]], int, dict[str, list[float]]]:
    panel = read_panel(config.data, as_of)
    spec = config.model.windows(panel)
    source = WindowSource(panel, spec)
    lightning.seed_everything(config.training.seed, verbose=False)
    model = make_forecaster(config.model, config.training, spec)
    last = len(panel.dates) - 1
    start = last - config.risk.backtest_sessions
    data = make_windows(model, config.training, source, validation_start=None, test_start=panel.dates[start])
    fit(model, data, progress=False, **fit_options(config.training))
    forecast: Forecast
    dates = panel.dates[start:]
    found = evaluate(model.network, spec, panel, dates, min_history=60, stale=5, source=source)
    forecast = found.forecast(model.network, panel, spec.horizons)
    judged = judge(panel, forecast, found.scale, config.risk.levels)
    record, level = judged.records["qtorch"], max(config.risk.levels)
    tonights = forecast.value_at_risk(level)[:, 0]
    _print_delays(forecast, record, panel.returns()[start + 1 :], config)
    alarms: dict[str, list[bool]] = {}
    values: dict[str, list[float]] = {}
    before = None
    least = spec.features.first_usable + 1
    for night in range(len(dates) - nights, len(dates)):
        until = panel.until(dates[night])
        states = states_of(until, None, least, config.data, {})
        due = list(states.index[states["status"] != "retired"])
        past = Record(
            record.returns[:night],
            {each: var[:night] for each, var in record.value_at_risk.items()},
            {each: es[:night] for each, es in record.expected_shortfall.items()},
        )
        readings = read_gates(config.gates, until, due, before)
        readings += read_drift(config.drift, judged.transforms[:night], past, tonights[night])
        for reading in readings:
            alarms.setdefault(reading.name, []).append(reading.alarm)
            shown = (reading.values[name] for name in ("share", "ratio", "evidence") if name in reading.values)
            values.setdefault(reading.name, []).append(next(shown, None) or 0.0)
        before = due
    return alarms, nights, values


def _print_delays(forecast: Forecast, record: Record, returns: torch.Tensor, config: NightlyConfig) -> None:
    """How many nights after all returns become 1.5 times as large, with forecasts as they are, the gates say so."""
    level, past = max(config.risk.levels), forecast.over(1).select(slice(len(forecast.dates) - 1))
    delays: dict[str, list[int]] = {"uniformity": [], "coverage": []}
    for first in range(250, len(returns) - 250, 25):
        scale = torch.ones(len(returns), 1, dtype=torch.float64)
        scale[first:] = 1.5
        transforms = past.pit((scale * returns)[:, None].float())[:, 0]
        worse = Record(scale * record.returns, record.value_at_risk, record.expected_shortfall)
        waiting = set(delays)
        for night in range(first + 5, first + 250, 5):
            until = Record(
                worse.returns[:night], {level: worse.value_at_risk[level][:night]}, {level: worse.returns[:night]}
            )
            for reading in read_drift(config.drift, transforms[:night], until, record.value_at_risk[level][night]):
                if reading.alarm and reading.name in waiting:
                    waiting.remove(reading.name)
                    delays[reading.name].append(night - first)
        for name in waiting:
            delays[name].append(250)
    for name, nights in delays.items():
        print(
            f"{name:<18} says that returns are 1.5 times as large after {np.median(nights):.0f} nights, "
            f"at most {max(nights)} (250: not at all), of {len(nights)} beginnings"
        )


if __name__ == "__main__":
    main()
