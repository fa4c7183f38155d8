"""Time of `import qtorch` with all its rooms beside that of torch, lightning and pandas, in fresh processes, in turn.

`import qtorch` alone imports nothing; a room is imported when it is first named.

Usage: python benchmarks/import_time.py [--runs 5]
"""

import argparse
import statistics
import subprocess
import sys
import time

OURS, THEIRS = "from qtorch import *", "import torch, lightning, pandas"


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    for code in (OURS, THEIRS):  # warms the disk cache
        seconds(code)
    pairs = [(seconds(OURS), seconds(THEIRS)) for _ in range(runs)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"qtorch, all rooms {ours:.2f} s; torch, lightning, pandas {theirs:.2f} s; ratio {ratio:.2f} (of {runs})")


if __name__ == "__main__":
    main()
