"""What `qtorch check` runs: the look-ahead detector on a function or a saved model."""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from qtorch.backtest import LookaheadReport, check_lookahead
from qtorch.data import Panel
from qtorch.deploy import inspect_bundle, load
from qtorch.errors import ArgumentError
from qtorch.training import Allocator, Forecaster


def run(
    target: str, data: str, *, exchange: str | None = None, allow: Iterable[str] = (), **options: Any
) -> LookaheadReport:
    """Checks a pipeline on a file of prices.

    Args:
        target: as of `pipeline_of`.
        data: a Parquet file or dataset, as of `Panel.from_parquet`.
        exchange: the exchange code of all assets, where the data have no column for it.
        allow: as of `pipeline_of`.
        **options: as of `qtorch.backtest.check_lookahead`.

    Raises:
        ValueError: the target or the data cannot be used, or an option is out of bounds.
        PipelineError: the pipeline failed.
    """
    return check_lookahead(pipeline_of(target, allow), Panel.from_parquet(data, exchange=exchange), **options)


def pipeline_of(target: str, allow: Iterable[str] = ()) -> Any:
    """A pipeline by name.

    Args:
        target: ``package.module:name`` of a function of a panel, or of a model, importable from here; or the folder of
            a model that `qtorch.deploy.save` wrote.
        allow: packages beside qtorch whose classes and functions a saved model may name.

    Raises:
        ValueError: there is none, or its module fails when it is imported.
    """
    if Path(target).is_dir():
        kind = Allocator if inspect_bundle(target).get("kind") == Allocator.__name__ else Forecaster
        model, _ = load(target, kind, allow=allow)
        return model
    module, _, name = target.partition(":")
    if not (module and name):
        raise ArgumentError(f"{target} is neither package.module:function nor the folder of a saved model.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does
    try:
        there = import_module(module)
    except (Exception, SystemExit) as error:  # a module runs whatever it likes
        raise ArgumentError(
            f"{target}: cannot import {module} from {Path.cwd()} ({type(error).__name__}: {error})."
        ) from error
    if not hasattr(there, name):
        raise ArgumentError(f"{target}: the module {module} has no {name!r}.")
    return getattr(there, name)
