"""The nightly risk forecast: read, check, train or load, forecast, backtest, aggregate, write."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from qtorch.backtest.walk.workers import ProcessPool, process_pool
from qtorch.configuration import plain
from qtorch.data.whole_folder import whole_folder
from qtorch.deploy.bundle import versions
from qtorch.errors import ArgumentError
from qtorch.nightly import gates, tables
from qtorch.nightly.alarms import held_by
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
from qtorch.nightly.data_gates import last_universe, read_gates
from qtorch.nightly.drift import read_drift
from qtorch.nightly.facts import dependence_facts, without_dependence
from qtorch.nightly.fingerprint import inputs_of
from qtorch.nightly.forecast_history import MODEL, History, sessions_back
from qtorch.nightly.held import drop_held
from qtorch.nightly.models import model_for
from qtorch.nightly.night import Night
from qtorch.nightly.outcome import ExitCode
from qtorch.nightly.report import write_report
from qtorch.nightly.retention import HELD
from qtorch.nightly.schema import SCHEMA_VERSION
from qtorch.nightly.sinks import send
from qtorch.nightly.slices import evaluate_slice, judge
from qtorch.nightly.state import FOLDER as STATE
from qtorch.nightly.state import leave_state, maker
from qtorch.nightly.uncertainty import uncertainty_facts, uncertainty_table
from qtorch.nightly.universe import Universe


@dataclass(frozen=True)
class Result:
    """What a night came to.

    Attributes:
        code: `ExitCode.DONE` or `ExitCode.SOME_FAILED`; `ExitCode.HELD_BY_DATA` or `ExitCode.HELD_BY_DRIFT` of a night
            that is held back.
        folder: where the night's files are; of one that is held back, in ``held``.
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
    knowledge_time: pd.Timestamp | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool = False,
    say: Callable[[str], None] = print,
) -> Result:
    """Makes one night's forecasts and writes them, whole or not at all, to ``as_of=YYYY-MM-DD`` in the output folder.

    The same inputs, settings and seed give the same forecasts, whether the model is trained or loaded. A market of more
    than 256 assets is worked on in slices, so that memory grows little with it.

    What the network said of the backtest's sessions is kept in the folder ``state``; the next night asks it about the
    new sessions alone, where the model and the past data are what they were. Its forecasts are those of a night that
    starts afresh but for the rounding of sums, some 1e-6 of a volatility.

    Args:
        config: the job.
        as_of: the date up to which the night knows the world; the last date of the data by default, never the clock's.
        knowledge_time: the instant, with a time zone, after which nothing is known: rows whose `known_at` is later are
            left out, and models that know later rows are not used; None sets no such limit.
        workers: processes that slices are worked on in, with one thread each; None is this process. As for any such
            pool, a script calls this under ``if __name__ == "__main__":``.
        executor: works on the slices instead of `workers`, such as a `qtorch.backtest.RayExecutor`.
        progress: show bars of the training and of slices.
        say: receives a line per stage.

    Raises:
        DataError: the data or the positions cannot be used.
        NotASession: no exchange of the data has a session on the as-of date.
        Refused: the data do not pass a check, or no weights keep to the allocation's constraints.
        SinkError: the night is whole, but could not be sent on.
        ValueError: a class that the configuration names does not exist, is not allowed or does not fit, or there are
            both workers and an executor.
    """
    if workers is not None and executor is not None:
        raise ArgumentError("workers are processes of the night's own, beside which there is no other executor.")
    with nullcontext(executor) if workers is None else process_pool(workers, evaluate_slice) as pool:
        return _run(config, as_of, knowledge_time, pool, progress, say)


def _run(
    config: NightlyConfig,
    as_of: str | None,
    knowledge_time: pd.Timestamp | None,
    executor: Executor | None,
    progress: bool,
    say: Callable[[str], None],
) -> Result:
    clock = Clock(say)
    with clock.stage("read and check"):
        inputs = inputs_of(config, knowledge_time)  # before the data are read, so that later ones are not taken for it
        panel = gates.read_panel(
            config.data, as_of, knowledge_time, keep=Path(config.output) / STATE / "panel", say=say
        )
        spec = config.model.windows(panel)
        universe = Universe(config, panel, spec, executor, progress, say)
        if isinstance(executor, ProcessPool) and not universe.small:
            executor.start(evaluate_slice.__module__)
        exposures, unit = pd.Series(dtype=float), "weight"
        if config.positions is not None:
            exposures, unit = gates.read_positions(config.positions, panel)
        least = spec.features.first_usable + 1
        states = gates.states_of(panel, universe.possible, least, config.data, exposures)
        if config.risk.calibration is not None:
            make_calibrator(config, panel.assets)  # so that one that can't be is told before the training
        due = states.index[states["status"] != "retired"]
        readings = read_gates(config.gates, panel, due, last_universe(config.output, panel.dates[-1]))
    allocation = targets = None
    if config.allocation is not None:
        with clock.stage("allocation"):  # before the training, so that limits that cannot be kept are told at once
            allocation = allocate(config.allocation, panel, states, exposures, unit, config.model.allow)
    with clock.stage("train or load"):
        model, about = model_for(
            config, panel, spec, universe.windows, progress, say, held_by(readings) is not None, knowledge_time
        )
    with clock.stage("forecast"):
        made_by, network = maker(config, spec, about), model.network
        traded = set(exposures.index) if allocation is None else set(exposures.index) | allocation.traded
        together = universe.small or network.layout == "panel"  # all assets are one slice, and depend on each other
        last = len(panel.dates) - 1
        back = sessions_back(config, panel, joint=together and (bool(traded) or config.risk.dependence == "copula"))
        answers = {
            "universe": universe.answers(network, made_by, np.arange(last - back, last + 1), panel.assets, "universe")
        }
        history = History(config, panel, answers["universe"].found.forecast(network, panel, spec.horizons))
        states = gates.states_of(panel, history.alone.mask[0], least, config.data, exposures)
        forecasts = tables.forecast_table(history, states, config.risk.levels)
    calibration = None
    if config.risk.calibration is not None:
        with clock.stage("calibration"):
            calibration = calibrate(history, about, say)
            forecasts = with_calibration(forecasts, calibration.tonight)
    with clock.stage("backtest"):
        days = slice(history.backtest.start, None)
        scale = answers["universe"].found.scale[days]
        if together:
            judged = judge(panel, history.forecast.select(days), scale, config.risk.levels)
        else:
            judged = universe.judged(network, answers["universe"].found.select(days))
        records = dict(judged.records)
        unsure = None if judged.shares is None else uncertainty_table(forecasts, judged.shares, states)
        if calibration is not None:
            records[CALIBRATED] = calibration.record
        backtests = [record.table(panel.assets, name) for name, record in records.items()]
        tonight = history.alone.value_at_risk(max(config.risk.levels))[0, 0]
        readings += read_drift(config.drift, judged.transforms, records[MODEL], tonight)
    held = held_calibrated = None
    portfolio = tables.no_portfolio()
    joint: History | None = history if together else None
    if not together and traded:
        with clock.stage("scenarios"):
            some = [asset for asset in panel.assets if asset in traded]
            back = sessions_back(config, panel, joint=True)
            rows = np.arange(last - back, last + 1)
            answers["portfolio"] = universe.answers(network, made_by, rows, some, "portfolio")
            part = panel.select(some)
            joint = History(config, part, answers["portfolio"].found.forecast(network, part, spec.horizons))
    if len(exposures):
        assert joint is not None
        with clock.stage("portfolio"):
            portfolio = tables.portfolio_table(joint, exposures, unit, states)
            by_column = [exposures.get(asset, 0.0) for asset in joint.panel.assets]
            exposure = torch.tensor(by_column, dtype=torch.float64)
            held = joint.portfolio(exposure)
            backtests.append(held.record.table([tables.PORTFOLIO], MODEL))
            if calibration is not None:
                held_calibrated, whole = calibrate_portfolio(joint, held, exposure, about)
                portfolio = with_calibration(portfolio, whole)
                backtests.append(held_calibrated.table([tables.PORTFOLIO], CALIBRATED))
    if allocation is not None:
        assert joint is not None
        with clock.stage("trades' risk"):
            targets = allocation_facts(allocation, joint, panel)
    dependence = without_dependence(config) if joint is None else dependence_facts(joint, portfolio)
    backtest = pd.concat(backtests, ignore_index=True)
    backtest = backtest[backtest["observations"] > 0].reset_index(drop=True)

    date = panel.dates[-1]
    held_back = held_by(readings)
    done = ExitCode.SOME_FAILED if (states["status"] == "refused").any() else ExitCode.DONE
    output = Path(config.output) if held_back is None else Path(config.output) / HELD
    result = Result(held_back or done, output / f"as_of={date:%Y-%m-%d}", states)
    for reading in readings:
        if reading.alarm:
            say(f"{'held back' if reading.holds else 'warning'}: {reading}")
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
                judged.transforms,
                held,
                about,
                dependence,
                None if allocation is None else allocation.table,
                targets,
                unsure,
                calibration,
                held_calibrated,
                readings,
            )
            write_report(night, folder / "report.html")
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "as_of": f"{date:%Y-%m-%d}",
            "as_of_instant": panel.as_of[-1].isoformat(),
            "exit_code": int(result.code),
            "failed_assets": result.failed.to_dict(),
            "seed": config.training.seed,
            **inputs,
            "knowledge_time": None if knowledge_time is None else knowledge_time.isoformat(),
            "gates": [reading.plain() for reading in readings],
            "counts": {str(status): int(n) for status, n in states["status"].value_counts().items()},
            "model": about,
            "dependence": dependence,
            "config": plain(config),
            "findings": {str(kind): int(n) for kind, n in panel.findings["kind"].value_counts().items()},
            "versions": versions(),
            "seconds": clock.seconds,
        } | ({} if targets is None else {"allocation": targets})
        manifest |= {} if unsure is None else {"uncertainty": uncertainty_facts(unsure, history.alone.draws)}
        if calibration is not None:
            manifest["calibration"] = {
                "origin": calibration.origin,
                "note": calibration.note,
                "changed": changed_much(forecasts),
            }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    if network.layout == "asset" and not network.joint:
        with clock.stage("keep state"):  # after the night, which is whole without it
            leave_state(config, made_by, answers, universe.sessions())
    if held_back is None:
        drop_held(config.output, f"{date:%Y-%m-%d}")
        send(result.folder, config.sinks, say)
    return result
