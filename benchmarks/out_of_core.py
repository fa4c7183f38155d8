"""A market larger than memory: 20,000 assets x 25 years x 8 fields built, windowed and trained on, within 4 GiB.

    python benchmarks/out_of_core.py [--assets 20000] [--years 25] [--folder DIR]

Writes a partitioned Parquet dataset (6 GB; the folder needs 35 GB free), then in a process of its own builds the
panel and the windows' sessions on disk and trains the README's model for an epoch. What counts is the peak of that
process's resident memory, mapped pages included.
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

FIELDS = ["open", "high", "low", "close", "volume", "realised_variance", "bid", "ask"]


def write_prices(folder: Path, assets: int, years: int) -> None:
    """A part for every 500 assets."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    markets = walks(assets, years)
    for block in range(-(-assets // 500)):
        tables = []
        for name, exchange, days, close in islice(markets, 500):
            constant = np.zeros(len(days), np.int32)
            columns = {
                "date": days,
                "asset": pa.DictionaryArray.from_arrays(constant, [name]),
                "exchange": pa.DictionaryArray.from_arrays(constant, [exchange]),
                "open": close,
                "high": 1.01 * close,
                "low": 0.99 * close,
                "close": close,
                "volume": np.full(len(days), 1e6),
                "realised_variance": np.full(len(days), 2e-4),
                "bid": 0.999 * close,
                "ask": 1.001 * close,
            }
            tables.append(pa.table(columns))
        part = folder / f"block={block:03d}"
        part.mkdir(parents=True)
        pq.write_table(pa.concat_tables(tables), part / "prices.parquet", compression="lz4")


def measure(folder: Path) -> dict[str, float]:
    """Seconds and peaks of resident memory, in GiB, of each step."""
    import qtorch
    from qtorch.data import DataModule, Panel, WindowSource, WindowSpec

    figures = {"imports_peak": _peak()}
    start = time.perf_counter()
    panel = Panel.from_parquet(
        folder / "prices", fields=["bid", "ask"], store=folder / "panel", progress=sys.stderr.isatty()
    )
    figures |= {"panel_seconds": time.perf_counter() - start, "panel_peak": _peak()}
    start = time.perf_counter()
    spec = WindowSpec(context=64, horizons=(1, 10))
    source = WindowSource(panel, spec, store=folder / "sessions", progress=sys.stderr.isatty())
    figures |= {"sessions_seconds": time.perf_counter() - start, "sessions_peak": _peak()}
    start = time.perf_counter()
    data = DataModule(panel, spec, source=source, validation_start="2022-12-28", batches_per_epoch=100)
    encoder = qtorch.models.Transformer(len(spec.features))
    model = qtorch.Forecaster(encoder, qtorch.heads.SkewedStudentT(encoder.out_features, spec.horizons), spec)
    loss = qtorch.training.fit(model, data, max_epochs=1, accelerator="cpu")
    figures |= {"training_seconds": time.perf_counter() - start, "peak": _peak(), "loss": loss}
    figures["windows"] = len(data.training_set)
    figures["on_disk"] = sum(path.stat().st_size for path in folder.glob("[ps]*/*.npy")) / 2**30
    return figures


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=int, default=20_000)
    parser.add_argument("--years", type=int, default=25)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary folder by default")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_prices(folder / "prices", arguments.assets, arguments.years)
        command = [sys.executable, __file__, "--measure", str(folder)]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(
        f"{arguments.assets} assets, {arguments.years} years, {len(FIELDS)} fields, "
        f"{figures['windows'] / 1e6:.0f} million training windows, {figures['on_disk']:.1f} GiB on disk"
    )
    for step in ("panel", "sessions"):
        print(f"{step}: {figures[f'{step}_seconds']:.0f} s, peak so far {figures[f'{step}_peak']:.2f} GiB")
    print(f"training, 100 batches: {figures['training_seconds']:.0f} s, peak {figures['peak']:.2f} GiB")


if __name__ == "__main__":
    main()
