"""The nightly job by number of assets: seconds of each stage, peak memory, and how both grow.

    python benchmarks/nightly.py [--assets 100 1000 5000] [--years 25] [--real] [--workers 2] [--nights 0] [--arch 20]

Random walks on the calendars of five exchanges, or with --real the sample's assets, repeated, over the years that they
have; a default forecaster that was trained before on a hundred of them is given. Each night is a
process of its own: one from scratch, and one of the session after it, whose prices come as a file more, which goes on
from the state that the first has left. Peak memory is the most that the process and its workers have at one time.
Beside it stands what arch takes to fit a GJR-GARCH model with Hansen's skewed errors to the last 2,000 returns of each
asset, from a sample of them.

With --nights, so many nights follow each other in one process on a small market, whose first and last tenth tell
whether time and memory per night stay the same.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from walks import walks

TRAINED_ON = 100  # assets
NIGHTS = ("2022-12-27", "2022-12-28")
TRAINED = "2022-12-15"


def repeated(assets: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Assets of the sample, again and again under other names; as of `walks`."""
    from qtorch.data import load_sample

    sample = load_sample().dropna(subset=["close"])
    series = [
        (key, group["date"].to_numpy().astype("M8[s]"), group["close"].to_numpy())
        for key, group in sample.groupby(["asset", "exchange"], observed=True)
    ]
    for n in range(assets):
        (_, exchange), days, close = series[n % len(series)]
        yield f"A{n:05d}", exchange, days, close


def write_prices(folder: Path, assets: int, years: int) -> Path:
    """A dataset of the sessions up to the first night, sorted by asset and date; returns one of those after it.

    Args:
        folder: of the dataset.
        assets: how many.
        years: of random walks; 0 repeats the sample.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    writer = None
    tables, later = [], []
    for n, (name, exchange, days, close) in enumerate(walks(assets, years) if years else repeated(assets), start=1):
        columns = {"date": days, "asset": [name] * len(days), "exchange": [exchange] * len(days), "close": close}
        table = pa.table(columns)
        first, last = (int((days <= np.datetime64(night)).sum()) for night in NIGHTS)
        tables.append(table[:first])
        later.append(table[first:last])
        if n % 100 == 0 or n == assets:
            table = pa.concat_tables(tables)
            if writer is None:
                writer = pq.ParquetWriter(folder / f"1-to-{NIGHTS[0]}.parquet", table.schema, compression="zstd")
            writer.write_table(table)
            tables = []
    assert writer is not None
    writer.close()
    after = folder.with_name(f"{NIGHTS[1]}.parquet")
    pq.write_table(pa.concat_tables(later), after)
    return after


def config_of(prices: str, output: str) -> Any:
    from qtorch.configuration import ModelConfig
    from qtorch.nightly import NightlyConfig
    from qtorch.nightly.config import NightlyData, NightlyTraining

    return NightlyConfig(
        data=NightlyData(path=prices),
        model=ModelConfig(horizons=[1, 10]),
        training=NightlyTraining(max_epochs=1, refit_after=250, seed=0),
        output=output,
    )


class Peaks(threading.Thread):
    """Looks at this process and its workers, and keeps the most memory that each has had.

    The kernel's own count of a child begins with what its parent had when it was started.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done, self.most = threading.Event(), 0.0
        self._page = resource.getpagesize()

    def run(self) -> None:
        """Until it is told to stop."""
        me = os.getpid()
        while not self.done.wait(0.1):
            children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
            self.most = max(self.most, sum(self._resident(pid) for pid in [str(me), *children]))

    def _resident(self, pid: str) -> float:
        """GiB; without pages that are shared with other processes, such as libraries' code, but for this one."""
        try:
            size, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            return 0.0
        return (size - (shared if pid != str(os.getpid()) else 0)) * self._page / 2**30


def one_night(prices: str, output: str, date: str, workers: int) -> dict[str, Any]:
    from qtorch.nightly import run

    start, lines, peaks = time.perf_counter(), [], Peaks()
    peaks.start()
    result = run(config_of(prices, output), as_of=date, workers=workers or None, say=lines.append)
    wall = time.perf_counter() - start
    peaks.done.set()
    peaks.join()
    manifest = json.loads((result.folder / "manifest.json").read_text())
    return {
        "seconds": manifest["seconds"] | {"all": round(wall, 1)},
        "peak GiB": round(peaks.most, 2),
        "state": [line for line in lines if line.startswith(("panel", "sessions", "universe"))],
        "page KB": (result.folder / "report.html").stat().st_size // 1000,
    }


def in_process(*arguments: Any) -> Any:
    """What a function of this file gives in a process of its own."""
    command = [sys.executable, __file__, "--call", json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def arch_seconds(prices: str, sample: int) -> float:
    """Of one asset's fit, in this process."""
    from arch import arch_model

    frame = pd.read_parquet(prices, filters=[("asset", "in", [f"A{n:05d}" for n in range(sample)])])
    series = [100 * group["close"].pct_change().dropna().to_numpy()[-2000:] for _, group in frame.groupby("asset")]
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for returns in series:
            arch_model(returns, mean="Constant", p=1, o=1, q=1, dist="skewt").fit(disp="off", show_warning=False)
    return (time.perf_counter() - start) / len(series)


def a_row(prices: str, output: str, nights: int) -> dict[str, list[float]]:
    """Seconds and megabytes of the first and the last tenth of some nights in one process."""
    from qtorch.nightly import run

    dates = np.sort(pd.read_parquet(prices, columns=["date"])["date"].unique())[-nights:].astype("M8[D]").astype(str)
    config = config_of(prices, output)
    config.training.refit_after, config.data.max_missing_share = 2 * nights, 1.0  # of so few assets most may be missing
    seconds, memory = [], []
    for date in dates.tolist():
        start = time.process_time()
        run(config, as_of=date, say=lambda line: None)
        seconds.append(time.process_time() - start)
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6)
    tenth = max(1, nights // 10)
    parts = (slice(1, 1 + tenth), slice(-tenth, None))  # without the first, which trains
    return {
        "CPU seconds a night, first and last tenth": [round(float(np.mean(seconds[part])), 2) for part in parts],
        "resident MB, first and last tenth": [round(float(np.mean(memory[part]))) for part in parts],
    }


def slope(assets: list[int], values: list[float]) -> float:
    """Of the logarithms, by least squares."""
    return float(np.polyfit(np.log(assets), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--years", type=int, default=25)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nights", type=int, default=0)
    parser.add_argument("--arch", type=int, default=20)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.call:
        name, *arguments = json.loads(given.call)
        print(json.dumps(globals()[name](*arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        years = 0 if given.real else given.years
        small = f"{folder}/small"
        write_prices(Path(small), TRAINED_ON, years)
        in_process("one_night", small, f"{folder}/trained", TRAINED, 0)
        found: dict[str, list[dict[str, Any]]] = {"from scratch": [], "incremental": []}
        for assets in given.assets:
            prices, output = f"{folder}/prices", f"{folder}/out"
            after = write_prices(Path(prices), assets, years)
            shutil.copytree(f"{folder}/trained/models", f"{output}/models")
            for kind, date in zip(found, NIGHTS, strict=True):
                found[kind].append(in_process("one_night", prices, output, date, given.workers))
                print(f"{assets} assets, {kind}: {json.dumps(found[kind][-1])}", flush=True)
                if after.exists():
                    after.rename(Path(prices) / after.name)
            if given.arch and assets == given.assets[-1]:
                each = in_process("arch_seconds", prices, given.arch)
                print(
                    f"arch, GJR-GARCH of 2,000 returns: {each:.3f} s an asset, {each * assets:.0f} s all, one process"
                )
            shutil.rmtree(output)
            shutil.rmtree(prices)
        if len(given.assets) > 1:
            for kind, nights in found.items():
                time_slope = slope(given.assets, [night["seconds"]["all"] for night in nights])
                memory = slope(given.assets, [night["peak GiB"] for night in nights])
                print(f"{kind}: log-log slope in assets: time {time_slope:.2f}, peak memory {memory:.2f}")
        if given.nights:
            few = f"{folder}/few"
            write_prices(Path(few), 10, 10).rename(Path(few) / "later.parquet")
            print(
                f"{given.nights} nights in a row: {json.dumps(in_process('a_row', few, f'{folder}/row', given.nights))}"
            )


if __name__ == "__main__":
    main()
