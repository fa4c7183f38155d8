"""A walk-forward of 500 assets by one worker and by two, in processes and on Ray: seconds, ratios, the same numbers.

    python benchmarks/fleet.py [--assets 500] [--years 8] [--refits 12]

Each side is a process of its own and each worker has one thread. The workers are started, and on Ray have been sent the
panel, by a walk of two refits before the one that is timed. Needs the extra `ray`.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pandas as pd
from walks import walks

SIDES = ("one process", "pool of 1", "pool of 2", "Ray, 1 worker", "Ray, 2 workers")


def market(assets: int, years: int) -> Any:
    from qtorch.data import Panel

    parts = [
        pd.DataFrame({"date": days, "asset": name, "exchange": exchange, "close": close})
        for name, exchange, days, close in walks(assets, years)
    ]
    return Panel.from_frame(pd.concat(parts, ignore_index=True))


def make_model() -> Any:
    """A small recurrent forecaster."""
    from qtorch.data import WindowSpec
    from qtorch.heads import SkewedStudentT
    from qtorch.models import Recurrent
    from qtorch.training import Forecaster

    spec = WindowSpec(context=32, horizons=(1,))
    encoder = Recurrent(len(spec.features), width=32)
    return Forecaster(encoder, SkewedStudentT(encoder.out_features, spec.horizons), spec)


def executor_of(side: str) -> AbstractContextManager[Any]:
    from qtorch.backtest import RayExecutor
    from qtorch.backtest.walk.workers import process_pool

    if side.startswith("Ray"):
        return RayExecutor(workers=int(side.split()[1]))
    return process_pool(int(side.split()[-1]), make_model) if side.startswith("pool") else nullcontext()


def timed(side: str, assets: int, years: int, refits: int) -> dict[str, Any]:
    """Seconds of a walk, and a hash of its forecasts."""
    import torch

    from qtorch.backtest import walk_forward

    torch.set_num_threads(1)
    panel = market(assets, years)
    step = 60
    dates = panel.dates[-step * refits - 1 :: step][:refits]
    walk: Any = partial(
        walk_forward,
        panel,
        make_model,
        warm_start=False,
        max_epochs=1,
        data={"batch_size": 64, "batches_per_epoch": 200},
        progress=False,
    )
    with executor_of(side) as executor:
        walk(refits=dates[-2:], executor=executor)
        start = time.perf_counter()
        found = walk(refits=dates, executor=executor)
        seconds = time.perf_counter() - start
    table = found.to_frame()
    digest = hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest()
    return {"seconds": seconds, "rows": len(table), "sha256": digest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=500)
    parser.add_argument("--years", type=int, default=8)
    parser.add_argument("--refits", type=int, default=12)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(timed(given.side, given.assets, given.years, given.refits)))
        return
    found = {}
    for side in SIDES:
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
        found[side] = json.loads(done.stdout.splitlines()[-1])
        one = found.get("Ray, 1 worker" if side.startswith("Ray") else "pool of 1", found[side])
        print(f"{side:<16}{found[side]['seconds']:7.1f} s   {one['seconds'] / found[side]['seconds']:.2f}", flush=True)
    same = len({each["sha256"] for each in found.values()}) == 1
    rows = found[SIDES[0]]["rows"]
    print(f"{rows} rows of forecasts, {'the same numbers' if same else 'DIFFERENT NUMBERS'} on all sides")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
