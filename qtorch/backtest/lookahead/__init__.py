"""The look-ahead detector: does an output know what came later?"""

from qtorch.backtest.lookahead.check import check_lookahead
from qtorch.backtest.lookahead.report import LookaheadError, LookaheadReport
from qtorch.backtest.lookahead.runner import PipelineError

__all__ = ["LookaheadError", "LookaheadReport", "PipelineError", "check_lookahead"]
