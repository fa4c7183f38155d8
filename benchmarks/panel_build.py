"""Builds a panel of 5,000 assets and 25 years of open, high, low, close and volume from Parquet: time and peak memory.

    python benchmarks/panel_build.py [--assets 5000] [--years 25]

Each figure is of a process of its own: the panel, and beside it what `pandas.DataFrame.pivot` takes for the closes
alone and for all five fields. Peak memory is over that of the imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from walks import walks

FIELDS = ["open", "high", "low", "close", "volume"]


def write_prices(path: Path, assets: int, years: int) -> None:
    """One file, sorted by asset and date."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    markets = walks(assets, years)
    writer = None
    while group := list(islice(markets, 100)):
        tables = []
        for name, exchange, days, close in group:
            spread = np.abs(0.01 * close * rng.standard_normal((2, len(days))))
            columns = {
                "date": days,
                "asset": np.repeat(name, len(days)),
                "exchange": np.repeat(exchange, len(days)),
                "open": close,
                "high": close + spread[0],
                "low": np.maximum(close - spread[1], 0.2 * close),
                "close": close,
                "volume": np.round(1e5 * rng.random(len(days))),
            }
            tables.append(pa.table(columns))
        table = pa.concat_tables(tables)
        writer = pq.ParquetWriter(path, table.schema) if writer is None else writer
        writer.write_table(table)
    writer.close()


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(path: str) -> dict[str, float]:
    from qtorch.data import Panel

    base, start = peak_gib(), time.perf_counter()
    panel = Panel.from_parquet(path)
    seconds = time.perf_counter() - start
    tensors = (
        panel.values,
        panel.state,
        panel.session_day,
        panel.exchange_is_session,
        panel.exchange_next_day,
        panel.exchange_close,
    )
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**30
    return {"seconds": seconds, "peak": peak_gib() - base, "tensors": size, "observed": int(panel.mask.sum())}


def pivot(path: str, fields: list[str]) -> dict[str, float]:
    import pyarrow.parquet as pq

    base, start = peak_gib(), time.perf_counter()
    frame = pq.read_table(path, columns=["date", "asset", *fields]).to_pandas()
    read = time.perf_counter()
    wide = [frame.pivot(index="date", columns="asset", values=field) for field in fields]
    return {
        "seconds": time.perf_counter() - start,
        "pivot": time.perf_counter() - read,
        "peak": peak_gib() - base,
        "observed": int(wide[0].count().sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=int, default=5000)
    parser.add_argument("--years", type=int, default=25)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, path = arguments.measure
        print(json.dumps(build(path) if what == "panel" else pivot(path, FIELDS if what == "all" else ["close"])))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prices.parquet"
        write_prices(path, arguments.assets, arguments.years)
        results = {}
        for what in ("panel", "close", "all"):
            command = [sys.executable, __file__, "--measure", what, str(path)]
            results[what] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    panel, close, every = results["panel"], results["close"], results["all"]
    print(f"{arguments.assets} assets, {arguments.years} years, {panel['observed'] / 1e6:.1f} million prices")
    print(
        f"Panel.from_parquet, five fields, checked: {panel['seconds']:.1f} s, peak {panel['peak']:.2f} GiB, "
        f"{panel['peak'] / panel['tensors']:.2f} times its tensors ({panel['tensors']:.2f} GiB)"
    )
    for name, figures in (("closes alone", close), ("five fields", every)):
        print(
            f"pandas pivot, {name}: {figures['seconds']:.1f} s with reading, {figures['pivot']:.1f} s without, "
            f"peak {figures['peak']:.2f} GiB"
        )


if __name__ == "__main__":
    main()
