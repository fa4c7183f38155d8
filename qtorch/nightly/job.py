"""The nightly risk forecast: read, check, train or load, forecast, backtest, aggregate, write."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from qtorch.configuration import plain
from qtorch.data import WindowSource
from qtorch.data.whole_folder import whole_folder
from qtorch.deploy.bundle import versions
from qtorch.nightly import gates, tables
from qtorch.nightly.allocation import allocate, allocation_facts
from qtorch.nightly.calibration import (
    CALIBRATED,
    calibrate,
    calibrate_portfolio,
    changed_much,
    make_calibrator,
    with_calibration,
)
from qtorch.nightly.calibration_state import save_state
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.facts import dependence_facts
from qtorch.nightly.history import MODEL, History
from qtorch.nightly.models import model_for
from qtorch.nightly.night import Night
from qtorch.nightly.outcome import ExitCode
from qtorch.nightly.report import write_report
from qtorch.nightly.schema import SCHEMA_VERSION
from qtorch.nightly.sinks import send
from qtorch.nightly.uncertainty import past_shares, uncertainty_facts, uncertainty_table


@dataclass(frozen=True)
class Result:
    """What a night came to.

    Attributes:
        code: `ExitCode.DONE` or `ExitCode.SOME_FAILED`.
        folder: where the night's files are.
        states: tonight's state of each asset, as of `gates.asset_states`.
    """

    code: ExitCode
    folder: Path
    states: pd.DataFrame

    @property
    def failed(self) -> pd.Series:
        """Why each asset that is due has no forecast."""
        return self.states.loc[self.states["status"] == "refused", "reason"]


@dataclass
class Clock:
    """Seconds of each stage, told as they end."""

    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        self.say(f"{name:<16}{self.seconds[name]:7.1f} s")


def run(
    config: NightlyConfig,
    *,
    as_of: str | None = None,
    progress: bool = False,
    say: Callable[[str], None] = print,
) -> Result:
    """Makes one night's forecasts and writes them, whole or not at all, to ``as_of=YYYY-MM-DD`` in the output folder.

    The same inputs, settings and seed give the same forecasts, whether the model is trained or loaded.

    Args:
        config: the job.
        as_of: the date up to which the night knows the world; the last date of the data by default, never the clock's.
        progress: show a progress bar while training.
        say: receives a line per stage.

    Raises:
        DataError: the data or the positions cannot be used.
        NotASession: no exchange of the data has a session on the as-of date.
        Refused: the data do not pass a check, or no weights keep to the allocation's constraints.
        SinkError: the night is whole, but could not be sent on.
        ValueError: a class that the configuration names does not exist, is not allowed or does not fit.
    """
    clock = Clock(say)
    with clock.stage("read and check"):
        panel = gates.read_panel(config.data, as_of)
        source = WindowSource(panel, config.model.windows(panel))
        exposures, unit = pd.Series(dtype=float), "weight"
        if config.positions is not None:
            exposures, unit = gates.read_positions(config.positions, panel)
        states = gates.asset_states(panel, source, config.data, exposures)
        if config.risk.calibration is not None:
            make_calibrator(config, panel.assets)  # so that one that can't be is told before the training
    allocation = targets = None
    if config.allocation is not None:
        with clock.stage("allocation"):  # before the training, so that limits that cannot be kept are told at once
            allocation = allocate(config.allocation, panel, states, exposures, unit, config.model.allow)
    with clock.stage("train or load"):
        model, about = model_for(config, source, progress, say)
    with clock.stage("forecast"):
        history = History(config, source, model)
        forecasts = tables.forecast_table(history, states, config.risk.levels)
        past = past_shares(history)
        unsure = None if past is None else uncertainty_table(forecasts, past, states)
    calibration = None
    if config.risk.calibration is not None:
        with clock.stage("calibration"):
            calibration = calibrate(history, about, say)
            forecasts = with_calibration(forecasts, calibration.tonight)
    with clock.stage("backtest"):
        records = history.records()
        if calibration is not None:
            records[CALIBRATED] = calibration.record
        backtests = [record.table(panel.assets, name) for name, record in records.items()]
    held = held_calibrated = None
    portfolio = tables.no_portfolio()
    if len(exposures):
        with clock.stage("portfolio"):
            portfolio = tables.portfolio_table(history, exposures, unit, states)
            by_column = [exposures.get(asset, 0.0) for asset in panel.assets]
            exposure = torch.tensor(by_column, dtype=torch.float64)
            held = history.portfolio(exposure)
            backtests.append(held.record.table([tables.PORTFOLIO], MODEL))
            if calibration is not None:
                held_calibrated, whole = calibrate_portfolio(history, held, exposure, about)
                portfolio = with_calibration(portfolio, whole)
                backtests.append(held_calibrated.table([tables.PORTFOLIO], CALIBRATED))
    if allocation is not None:
        with clock.stage("trades' risk"):
            targets = allocation_facts(allocation, history)
    dependence = dependence_facts(history, portfolio)
    backtest = pd.concat(backtests, ignore_index=True)
    backtest = backtest[backtest["observations"] > 0].reset_index(drop=True)

    date = panel.dates[-1]
    result = Result(
        ExitCode.SOME_FAILED if (states["status"] == "refused").any() else ExitCode.DONE,
        Path(config.output) / f"as_of={date:%Y-%m-%d}",
        states,
    )
    with whole_folder(result.folder) as folder:
        with clock.stage("write"):
            tables.write_table(forecasts, folder / "forecasts.parquet")
            tables.write_table(portfolio, folder / "portfolio.parquet")
            tables.write_table(backtest, folder / "backtest.parquet")
            if allocation is not None:
                tables.write_table(allocation.table, folder / "allocation.parquet")
            if calibration is not None:
                save_state(calibration.calibrator, folder, calibration.settings)
            night = Night(
                date,
                config,
                unit,
                states,
                panel.findings,
                forecasts,
                portfolio,
                backtest,
                history,
                records,
                held,
                about,
                dependence,
                None if allocation is None else allocation.table,
                targets,
                unsure,
                calibration,
                held_calibrated,
            )
            write_report(night, folder / "report.html")
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "as_of": f"{date:%Y-%m-%d}",
            "as_of_instant": panel.as_of[-1].isoformat(),
            "exit_code": int(result.code),
            "failed_assets": result.failed.to_dict(),
            "seed": config.training.seed,
            "data_sha256": gates.file_hash(config.data.path),
            "positions_sha256": None if config.positions is None else gates.file_hash(config.positions),
            "model": about,
            "dependence": dependence,
            "config": plain(config),
            "findings": {str(kind): int(n) for kind, n in panel.findings["kind"].value_counts().items()},
            "versions": versions(),
            "seconds": clock.seconds,
        } | ({} if targets is None else {"allocation": targets})
        manifest |= {} if unsure is None else {"uncertainty": uncertainty_facts(unsure, history.tonight.draws)}
        if calibration is not None:
            manifest["calibration"] = {
                "origin": calibration.origin,
                "note": calibration.note,
                "changed": changed_much(forecasts),
            }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    send(result.folder, config.sinks, say)
    return result
