"""Orders in other libraries' backtests: each adapter is an extra, and imports its library when it is called."""

from qtorch.backtest.adapters.bt_backtest import to_bt
from qtorch.backtest.adapters.vectorbt_portfolio import to_vectorbt

__all__ = ["to_bt", "to_vectorbt"]
