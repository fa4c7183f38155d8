"""Runs a pipeline, and says on which panel it failed."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import pandas as pd

from qtorch.backtest.lookahead.outputs import Outputs, outputs_of
from qtorch.data import Panel
from qtorch.errors import BriefInNotebooks

_HISTORY = 60  # of an ensemble's members, by default

Pipeline = Callable[[Panel], Any]


class PipelineError(BriefInNotebooks, RuntimeError):
    """A pipeline that failed on a panel; its own error is the cause."""


class Runner:
    """A pipeline whose answers are frames.

    Args:
        pipeline: from a panel to any answer that `outputs_of` reads.

    Attributes:
        runs: how often it was run.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.runs = pipeline, 0

    def __call__(self, panel: Panel, what: str) -> Outputs:
        """Its answer.

        Args:
            panel: what it is given.
            what: says which panel that is, after "on".

        Raises:
            PipelineError: it raised an error, or gave what cannot be read.
        """
        self.runs += 1
        try:
            return outputs_of(self.pipeline(panel), panel)
        except Exception as error:
            raise PipelineError(
                f"the pipeline failed on {what}, {len(panel.dates)} rows from {panel.dates[0]:%Y-%m-%d} to "
                f"{panel.dates[-1]:%Y-%m-%d}: {type(error).__name__}: {str(error).rstrip('.')}. If it needs more "
                "history, give first= a later date, the earliest at which the panel is cut, and fewer starts=."
            ) from error


class AskedAt:
    """A model as a pipeline: what it says at some dates.

    Args:
        model: has `forecast(panel, dates)` or `allocate(panel, dates)`.
        dates: those of the panel's that it is asked for, of which a shorter panel may have fewer.
    """

    def __init__(self, model: Any, dates: pd.DatetimeIndex) -> None:
        self.ask = _question(model)
        self.dates = dates

    def __call__(self, panel: Panel) -> Any:
        """What the model says at the dates up to the panel's last."""
        return self.ask(panel, self.dates[(self.dates >= panel.dates[0]) & (self.dates <= panel.dates[-1])])


def history_of(model: Any) -> int:
    """The returns that an asset needs before a model says something of it."""
    if hasattr(model, "min_history"):
        return int(model.min_history)
    option = signature(_question(model)).parameters.get("min_history")
    return _HISTORY if option is None or option.default is option.empty else int(option.default)


def is_model(pipeline: Any) -> bool:
    """Whether it is a model that is asked at dates, and no function of a panel."""
    return _question(pipeline) is not None


def _question(model: Any) -> Any:
    """The method that a model is asked by; None if it has none."""
    methods = (getattr(model, name, None) for name in ("forecast", "allocate"))
    return next((method for method in methods if callable(method)), None)
