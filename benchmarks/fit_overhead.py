"""Time of `qtorch.training.fit` over that of the bare training steps: what the loader, Lightning and callbacks add.

    python benchmarks/fit_overhead.py [--rounds 5] [--epochs 4] [--threads 2] [--cpu]

The README's model on the sample market: a Transformer with a skewed Student-t head, 64 sessions of context, batches of
64, 40 of them an epoch. The bare loop takes as many steps of the same model on batches that lie in memory already, with
the same optimiser, schedule and clipping, and validates nothing; `fit` validates a few hundred windows and keeps the
best state after every epoch. Runs alternate; the ratio is the median over the rounds. `--threads 1 --cpu` counts
processor time, for machines with other work.
"""

import argparse
import copy
import statistics
import time
import warnings

import torch

import qtorch
from qtorch.data import DataModule, Panel, Window, WindowSpec, load_sample
from qtorch.training import fit
from qtorch.training.optimisation import adamw


def bare(model: qtorch.Forecaster, batches: list[Window], epochs: int) -> None:
    """The training steps and nothing else."""
    model.train()
    steps = epochs * len(batches)
    optimizer, rate = adamw(model, model.schedule, model.weight_decay, steps)
    for step in range(steps):
        optimizer.zero_grad()
        model.mean_loss(batches[step % len(batches)]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="count processor time instead of the clock's")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    panel = Panel.from_frame(load_sample())
    spec = WindowSpec()
    data = DataModule(panel, spec, validation_start=panel.dates[-10])
    encoder = qtorch.models.Transformer(len(spec.features))
    head = qtorch.heads.SkewedStudentT(encoder.out_features, spec.horizons)
    fresh = qtorch.Forecaster(encoder, head, spec)
    batches = list(data.train_dataloader())
    clock = time.process_time if args.cpu else time.perf_counter

    def seconds(epochs: int) -> tuple[float, float]:
        models = copy.deepcopy(fresh), copy.deepcopy(fresh)
        start = clock()
        fit(models[0], data, max_epochs=epochs, patience=epochs, accelerator="cpu")
        between = clock()
        bare(models[1], batches, epochs)
        return between - start, clock() - between

    seconds(1)  # imports, caches
    pairs = [seconds(args.epochs) for _ in range(args.rounds)]
    ratio = statistics.median(ours / steps for ours, steps in pairs)
    ours, steps = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"fit {ours:.2f} s, bare training steps {steps:.2f} s, ratio {ratio:.3f} (median of {args.rounds} rounds of "
        f"{args.epochs * len(batches)} steps, {args.threads} threads, {'processor' if args.cpu else 'wall-clock'} time)"
    )


if __name__ == "__main__":
    main()
