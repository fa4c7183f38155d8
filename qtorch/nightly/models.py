"""Which model forecasts tonight: a saved one while it is young enough, else one trained tonight."""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning
import pandas as pd

from qtorch.configuration import fit_options, make_forecaster, make_windows, plain
from qtorch.data import DataError, Panel, WindowSource, WindowSpec
from qtorch.data.whole_folder import whole_folder
from qtorch.deploy import BundleError, inspect_bundle, load, save
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.retention import HELD, MODELS
from qtorch.training import Forecaster, fit


def model_for(
    config: NightlyConfig,
    panel: Panel,
    spec: WindowSpec,
    windows: Callable[[], AbstractContextManager[WindowSource]],
    progress: bool,
    say: Callable[[str], None],
    held: bool = False,
    knowledge_time: pd.Timestamp | None = None,
) -> tuple[Forecaster, dict[str, Any]]:
    """Loads the youngest usable model of the output folder, or trains one and saves it there.

    A model is usable on a date if it was trained on or before it, at most `training.refit_after` sessions ago, with
    the same model and training settings. It never saw the `risk.backtest_sessions` before the date it was trained on,
    so the backtest of any night that uses it is out of sample.

    Args:
        config: the job.
        panel: up to tonight.
        spec: of the windows.
        windows: makes them, where a model is to be trained.
        progress: show a progress bar while training.
        say: receives a line where a model is not used.
        held: whether tonight's data hold the night back; a model that is trained on them is kept with it, where no
            other night takes it from.
        knowledge_time: a model that knows what became known after it is not usable; None sets no such limit.

    Returns:
        The model, and what is known about it: trained_as_of, folder, sha256 of the weights, how it came.
    """
    folder = Path(config.output) / "models"
    wanted = _settings_hash(config, spec)
    for candidate in sorted(folder.glob("trained=*"), reverse=True):
        try:
            about = inspect_bundle(candidate)["metadata"]
            trained = (
                panel.dates.get_indexer(pd.DatetimeIndex([about["as_of"]]))[0]
                if about["as_of"] <= str(panel.dates[-1])
                else -1
            )
            if trained < 0:
                continue  # trained after the as-of date, or on a date that the data no longer have
            age = len(panel.dates) - 1 - int(trained)
            if age > config.training.refit_after:
                say(f"model of {about['as_of']}: {age} sessions old, more than {config.training.refit_after}")
                break
            if knowledge_time is not None and _knows_until(about, panel, int(trained)) > knowledge_time:
                say(f"model of {about['as_of']}: knows what was not known at {knowledge_time.isoformat()}")
                continue
            if about["settings_sha256"] != wanted:
                say(f"model of {about['as_of']}: made with other settings")
                continue
            model, about = load(candidate, allow=config.model.allow)
        except (BundleError, KeyError) as error:
            say(f"model {candidate.name} is not usable: {error}")
            continue
        return model, _about(candidate, about, age)
    with windows() as source:
        own = Path(config.output) / HELD / MODELS if held else folder
        return _train(config, source, own, wanted, progress, knowledge_time)


def _knows_until(about: dict[str, Any], panel: Panel, row: int) -> pd.Timestamp:
    """The instant up to which a model that was trained at a row of the panel knows the world."""
    known = panel.as_of[row]
    limit = about.get("knowledge_time")
    return known if limit is None else min(known, pd.Timestamp(limit))


def _train(
    config: NightlyConfig,
    source: WindowSource,
    folder: Path,
    settings: str,
    progress: bool,
    knowledge_time: pd.Timestamp | None,
) -> tuple[Forecaster, dict[str, Any]]:
    dates = source.panel.dates
    test = len(dates) - 1 - config.risk.backtest_sessions
    training = config.training
    validation = test - training.validation_sessions
    if validation < 1:
        raise DataError(
            f"{len(dates)} dates are too few to train on: the backtest takes the last {config.risk.backtest_sessions} "
            f"and validation the {training.validation_sessions} before. Give more history, or lower "
            "risk.backtest_sessions and training.validation_sessions."
        )
    lightning.seed_everything(training.seed, verbose=False)
    model = make_forecaster(config.model, training, source.spec)
    validated = training.validation_sessions > 0
    data = make_windows(
        model,
        training,
        source,
        validation_start=dates[validation] if validated else None,
        test_start=dates[test],
    )
    loss = fit(model, data, progress=progress, **fit_options(training))
    about = {
        "as_of": f"{dates[-1]:%Y-%m-%d}",
        "trained_through": f"{dates[validation - 1]:%Y-%m-%d}",
        "validated_through": f"{dates[test - 1]:%Y-%m-%d}" if validated else None,
        "validation_loss": round(loss, 6) if validated else None,
        "assets": len(source.panel.assets),
        "seed": training.seed,
        "settings_sha256": settings,
    }
    if knowledge_time is not None:
        about["knowledge_time"] = knowledge_time.isoformat()
    target = folder / f"trained={dates[-1]:%Y-%m-%d}"
    with whole_folder(target) as part:
        save(model, part, about)
    return model, _about(target, about, 0)


def _about(folder: Path, metadata: dict[str, Any], age: int) -> dict[str, Any]:
    description = inspect_bundle(folder)
    return {
        **metadata,
        "age_sessions": age,
        "bundle": folder.name,
        "weights_sha256": description["weights_sha256"],
        "encoder": description["encoder"],
        "head": description["head"],
    }


def _settings_hash(config: NightlyConfig, spec: WindowSpec) -> str:
    """Of everything that makes a model what it is, but how often it is made.

    The windows are in it, because default features depend on the fields and exchanges of the data.
    """
    training = {key: value for key, value in plain(config.training).items() if key != "refit_after"}
    made_of = {
        "model": plain(config.model),
        "windows": spec.to_dict(),
        "training": training,
        "backtest_sessions": config.risk.backtest_sessions,
        "as_of": config.data.as_of,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
