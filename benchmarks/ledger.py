"""Orders and accounts of 5,000 assets over 5,000 sessions: processor time and peak memory of each step.

    python benchmarks/ledger.py [--assets 5000] [--sessions 5000]

Each rebalancing schedule runs in a process of its own. Beside the steps stand what the machine needs at least: one pass
over the matrix of closes (their sum), and the product of that matrix with a vector, which values units that stay. Peak
memory is over that of the inputs: the panel and the weights.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from qtorch.backtest import Ledger, Signals
from qtorch.data import Panel, sessions
from qtorch.data.calendars import day_number
from qtorch.data.states import states
from qtorch.portfolio import Costs


def market(assets: int, rows: int) -> Panel:
    """Random walks at New York's sessions, a hundredth of them halted, every tenth listed late."""
    known = sessions("XNYS", pd.Timestamp("2000-01-03"), pd.Timestamp("2023-12-29"))
    known_days, known_closes = known.days[:rows], known.closes[:rows]
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((rows, assets), dtype=np.float32), axis=0)).astype(float)
    observed = rng.random((rows, assets), dtype=np.float32) > 0.01
    observed &= np.arange(rows)[:, None] >= np.where(np.arange(assets) % 10, 0, rng.integers(0, rows // 2, assets))
    values = np.stack([close * 1.001, close], axis=2)
    values[~observed] = np.nan
    day = np.where(observed, day_number(known_days)[:, None], np.iinfo(np.int32).min).astype(np.int32)
    is_session = torch.ones(rows, 1, dtype=torch.bool)
    upcoming = day_number(known.days)[1 : rows + 1].astype(np.int32)
    return Panel(
        values=torch.from_numpy(values),
        state=states(torch.from_numpy(observed), is_session, [0] * assets),
        dates=known_days,
        assets=tuple(f"A{n:04d}" for n in range(assets)),
        fields=("open", "close"),
        exchanges=("XNYS",) * assets,
        as_of=known_closes,
        session_day=torch.from_numpy(day),
        exchange_codes=("XNYS",),
        exchange_is_session=is_session,
        exchange_next_day=torch.from_numpy(upcoming[:, None].copy()),
        exchange_close=torch.from_numpy((known_closes.asi8 // 60_000_000).astype(np.int32)[:, None].copy()),
        delisted=None,
        findings=pd.DataFrame({"kind": [], "asset": [], "date": [], "row": [], "detail": []}),
    )


def peak() -> float:
    """Gigabytes at the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return call(), time.process_time() - began


def measure(every: int, fill: str, assets: int, rows: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    panel = market(assets, rows)
    weights = torch.rand(len(panel.dates[::every]), assets, generator=torch.Generator().manual_seed(0)).double()
    weights /= weights.sum(1, keepdim=True)
    sessions("XNYS", panel.dates[0], panel.dates[-1])  # the calendar is built once in a process
    inputs = peak()
    signals, stamped = timed(lambda: Signals.from_panel(panel, weights, panel.dates[::every], fill=fill))
    orders, placed = timed(lambda: signals.orders(panel))
    at_orders = peak()
    account, run = timed(lambda: Ledger(Costs(0.0005, cash=1e-4, financing=2e-4)).run(orders))
    at_run = peak()
    closes, vector = np.nan_to_num(orders.closes), np.ones((assets, 1))
    _, read = timed(closes.sum)
    _, product = timed(lambda: closes @ vector)
    return {
        "fill": fill,
        "rebalances": len(account.trade_rows),
        "orders": int((~np.isnan(orders.targets)).sum()),
        "stamp": stamped,
        "place": placed,
        "run": run,
        "memory place": at_orders - inputs,
        "memory run": at_run - inputs,
        "one pass": read,
        "product": product,
        "matrix": closes.nbytes / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--one", nargs=2, metavar=("EVERY", "FILL"), help="a single case, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(int(options.one[0]), options.one[1], options.assets, options.sessions)))
        return
    sizes = ["--assets", str(options.assets), "--sessions", str(options.sessions)]
    rows = []
    for every, fill in ((1, "next_open"), (1, "next_close"), (21, "next_close")):
        command = [sys.executable, __file__, *sizes, "--one", str(every), fill]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(pd.DataFrame(rows).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
