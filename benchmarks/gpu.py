"""Training on a GPU against its own limits: tokens a second, model FLOPs utilisation, memory, and the data's share.

    PYTHONPATH=. python benchmarks/gpu.py [--device cuda] [--assets 500] [--batch 128] [--steps 30]

A panel of random walks on five exchanges' calendars lies on the device, and batches are gathered there. A causal
transformer of width 512 and depth 8 with a Student-t head trains on every session of windows of 256 in bfloat16: step
by step as it is, compiled, and compiled into CUDA graphs; then through `qtorch.training.fit`. A token is a session of a
window. The floating-point operations of a step are those of its matrix products and attention, counted by torch on the
uncompiled model; utilisation is their rate over the device's own rate for a product of two 8192 x 8192 matrices in
bfloat16, measured first. The data's share is the time of gathering a batch over that of a step with it.

Without a GPU it says that nothing was measured. ``--device cpu --small`` runs all of it at a size that shows only that
it works.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice

import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode
from walks import walks

import qtorch
from qtorch.data import DataModule, Panel, Window, WindowSpec
from qtorch.training import fit
from qtorch.training.optimisation import adamw

WARM_UP = 5  # steps
WAYS = {"as it is": None, "compiled": "default", "CUDA graphs": "reduce-overhead"}


class Clock:
    """Seconds of a task, with what it left running on the device."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def now(self) -> float:
        """After all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def median(self, task: Callable[[], object], rounds: int) -> float:
        """Of some rounds, after two that do not count."""
        seconds = []
        for _ in range(rounds + 2):
            start = self.now()
            task()
            seconds.append(self.now() - start)
        return statistics.median(seconds[2:])


class Epochs(Callback):
    """When each training epoch began and ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.times = clock, []

    def on_train_epoch_start(self, *_: object) -> None:
        """Notes the time."""
        self.times.append(self.clock.now())

    on_train_epoch_end = on_train_epoch_start


def limits(clock: Clock, small: bool) -> tuple[float, float]:
    """Floating-point operations a second of a matrix product in bfloat16, and bytes a second read and written."""
    n, size = (256, 1 << 20) if small else (8192, 1 << 30)
    a, b = (torch.randn(n, n, device=clock.device, dtype=torch.bfloat16) for _ in range(2))
    matrix = 2 * n**3 / clock.median(lambda: a @ b, 20)
    x = torch.empty(size, dtype=torch.uint8, device=clock.device)
    y = torch.empty_like(x)
    return matrix, 2 * size / clock.median(lambda: y.copy_(x), 20)


def market(assets: int, years: int, device: str) -> Panel:
    frames = [
        pd.DataFrame({"date": days, "asset": name, "exchange": exchange, "close": close})
        for name, exchange, days, close in walks(assets, years)
    ]
    return Panel.from_frame(pd.concat(frames, ignore_index=True)).to(device)


def model_of(spec: WindowSpec, width: int, depth: int) -> qtorch.Forecaster:
    torch.manual_seed(0)
    encoder = qtorch.models.Transformer(len(spec.features), width=width, depth=depth, heads=max(1, width // 64))
    return qtorch.Forecaster(encoder, qtorch.heads.StudentT(width, spec.horizons), spec)


def trainer_of(model: qtorch.Forecaster, steps: int) -> Callable[[Window], None]:
    """One training step, as of `fit`."""
    optimizer, rate = adamw(model, model.schedule, model.weight_decay, steps)
    kind = next(model.parameters()).device.type

    def step(window: Window) -> None:
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16):
            loss = model.mean_loss(window)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()

    return step


def endless(data: DataModule) -> Iterator[Window]:
    while True:
        yield from data.train_dataloader()


def row(way: str, seconds: float, share: float | None, args: argparse.Namespace, work: float, matrix: float) -> str:
    memory = torch.cuda.max_memory_allocated() / 2**30 if args.device != "cpu" else float("nan")
    tokens = args.batch * args.context / seconds
    data = "" if share is None else f"{share:.1%}"
    return f"| {way} | {1e3 * seconds:.1f} | {tokens:,.0f} | {work / seconds / matrix:.1%} | {memory:.1f} | {data} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--assets", type=int, default=500)
    parser.add_argument("--years", type=int, default=25)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--small", action="store_true", help="a toy's size, to see that it runs")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("not measured: torch sees no CUDA device here.")
        return
    if args.small:
        args.assets, args.years, args.context, args.batch, args.width, args.depth, args.steps = 5, 3, 16, 4, 32, 2, 3
    name = torch.cuda.get_device_name() if args.device != "cpu" else "CPU"
    torch.set_float32_matmul_precision("high")
    clock = Clock(args.device)
    matrix, copy = limits(clock, args.small)
    print(f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"bfloat16 matrix product {matrix / 1e12:.1f} TFLOP/s, copy {copy / 1e9:.0f} GB/s read and written\n")

    panel = market(args.assets, args.years, args.device)
    spec = WindowSpec(context=args.context, horizons=(1, 10))
    data = DataModule(panel, spec, validation_start=None, batch_size=args.batch, batches_per_epoch=args.steps)
    batches = endless(data)
    window = next(batches)
    gathering = clock.median(lambda: list(islice(batches, args.steps)), 3) / args.steps
    read = sum(getattr(window, part.name).nbytes for part in fields(window))
    of_copy = 2 * read / gathering / copy
    print(f"gathering a batch of {read / 1e6:.1f} MB: {1e3 * gathering:.3f} ms, {of_copy:.0%} of the copy's rate")

    model = model_of(spec, args.width, args.depth).to(args.device).train()
    with FlopCounterMode(display=False) as counter:
        trainer_of(model, 1)(window)
    work = counter.get_total_flops()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {work / 1e12:.2f} TFLOP a step\n")
    print("| way | ms a step | tokens/s | of the matrix rate | memory, GiB | data's share |")
    print("|---|--:|--:|--:|--:|--:|")
    for way in args.ways:
        torch._dynamo.reset()
        if args.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        model = model_of(spec, args.width, args.depth).to(args.device).train()
        if WAYS[way] is not None:
            model.network.compile(fullgraph=True, dynamic=False, mode=WAYS[way])
        step = trainer_of(model, WARM_UP + args.steps)
        for batch in islice(batches, WARM_UP):
            step(batch)
        start = clock.now()
        for batch in islice(batches, args.steps):
            step(batch)
        seconds = (clock.now() - start) / args.steps
        print(row(way, seconds, gathering / seconds, args, work, matrix), flush=True)
    for compile in (False, True):
        torch._dynamo.reset()
        epochs = Epochs(clock)
        accelerator = "cpu" if args.device == "cpu" else "gpu"
        options = {"max_epochs": 3, "precision": "bf16-mixed", "compile": compile, "accelerator": accelerator}
        model = model_of(spec, args.width, args.depth)
        fit(model, data, callbacks=[epochs], **options)
        seconds = (epochs.times[-1] - epochs.times[-2]) / args.steps
        print(row(f"fit(compile={compile})", seconds, None, args, work, matrix), flush=True)


if __name__ == "__main__":
    main()
