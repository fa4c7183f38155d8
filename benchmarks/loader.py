"""Windows per second of qtorch's loader beside the limit and other libraries' loaders, on one panel, without workers.

    python benchmarks/loader.py [names] [--python PATH ...] [--rounds 5] [--seconds 2] [--threads 2] [--cpu]

500 assets x 5,000 sessions, 4 % of the prices missing; batches of 256 windows of 256 past and 10 future steps with
their masks. Each loader runs in a process of its own, under the first interpreter that has its library (this one, then
those of --python); `make bench-loader` sets them up. Runs alternate, so that other work on the machine slows all alike;
figures are medians over the rounds, and it is their ratios that count. On a machine with other work take `--threads 1
--cpu`, which counts processor time: threads that wait for one another while a core is taken tell nothing of a loader.
Every loader's first batch is checked.
"""

import importlib
import json
import logging
import os
import resource
import statistics
import sys
import time
import warnings
from itertools import islice
from typing import Any

from loader_peers import LOADERS, Batches, Loader, Task
from worker import Worker, arguments, chosen, interpreter

WARM_UP = 3  # batches


def work(name: str) -> None:
    """A worker's side: facts of the set-up, then a rate for every run asked for, then the peak memory."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # some libraries print
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    loader, task = LOADERS[name], Task()
    importlib.import_module(loader.needs)
    _ = task.prices
    start = time.perf_counter()
    batches = loader.build(task)
    batch = next(batches)
    facts = {"setup": time.perf_counter() - start} | check(loader, task, batch)
    for _ in islice(batches, WARM_UP):
        pass
    print(json.dumps(facts), file=answer, flush=True)
    while run := sys.stdin.readline().strip():
        print(rate(batches, task.batch, *json.loads(run)), file=answer, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=answer, flush=True)
    os._exit(0)  # some libraries leave threads behind


def rate(batches: Batches, windows: int, seconds: float, cpu: bool) -> float:
    """Windows per second over at least so many seconds."""
    clock = time.process_time if cpu else time.perf_counter
    count, start = 0, clock()
    while (elapsed := clock() - start) < seconds:
        batch = next(batches)  # the last batch stays alive while the next is made, as in training
        count += 1
    del batch
    return count * windows / elapsed


def check(loader: Loader, task: Task, batch: dict[str, Any]) -> dict[str, Any]:
    """Raises if a batch is not of the task; whether it has masks, and the share of the past that they call observed."""
    for part, steps in (("past", task.context), ("future", task.horizon)):
        for tensor in (batch[part], batch[part + "_mask"]):
            if tensor is not None and tuple(tensor.shape) not in {(task.batch, steps), (task.batch, steps, 1)}:
                raise ValueError(f"{loader.label}: {part} has shape {tuple(tensor.shape)}.")
    if loader.check is not None:
        loader.check(task, batch)
    mask = batch["past_mask"]
    return {"masks": mask is not None, "observed": None if mask is None else float(mask.float().mean())}


def table(names: list[str], pythons: list[str], rounds: int, seconds: float, threads: int, cpu: bool) -> str:
    """Runs the loaders in turn and lays the results out in Markdown, fastest first."""
    workers: dict[str, Worker] = {}
    for name in names:
        python = interpreter(LOADERS[name].needs, pythons)
        if python is None:
            print(f"{name}: no interpreter has {LOADERS[name].needs.partition('.')[0]}; see --python", file=sys.stderr)
            continue
        workers[name] = Worker(__file__, name, python, threads)
        print(f"{name}: set up in {workers[name].facts['setup']:.1f} s", file=sys.stderr)
    rates = [{name: worker.run(seconds, cpu) for name, worker in workers.items()} for _ in range(rounds)]
    lines = [
        f"| loader | windows/{'CPU s' if cpu else 's'} | of the limit | masks | observed | set-up s | peak MB |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for name in sorted(workers, key=lambda name: -statistics.median(turn[name] for turn in rates)):
        facts = workers[name].facts
        windows = statistics.median(turn[name] for turn in rates)
        share = statistics.median(turn[name] / turn["limit"] for turn in rates)
        observed = "" if facts["observed"] is None else f"{facts['observed']:.1%}"
        lines.append(
            f"| {LOADERS[name].label} | {windows:,.0f} | {share:.{1 if share > 0.1 else 3}%} | "
            f"{'yes' if facts['masks'] else 'no'} | {observed} | {facts['setup']:.1f} | {workers[name].stop():,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, LOADERS, "limit", rounds=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="a loader's share of a round")
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
    names, pythons = chosen(parser, args, LOADERS, "limit")
    print(table(names, pythons, args.rounds, args.seconds, args.threads, args.cpu))


if __name__ == "__main__":
    main()
