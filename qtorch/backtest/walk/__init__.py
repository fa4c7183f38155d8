"""Refits of a model through time, each of which is asked about the dates up to the next."""

from qtorch.backtest.walk.forward import walk_forward
from qtorch.backtest.walk.result import Walk
from qtorch.backtest.walk.running import RefitError

__all__ = ["RefitError", "Walk", "walk_forward"]
