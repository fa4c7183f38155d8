"""Training steps of qtorch's encoders beside other libraries' PatchTST at equal size: samples and targets per second.

    python benchmarks/patch_transformer.py [names] [--python PATH ...] [--rounds 7] [--steps 4] [--threads 2] [--cpu]

A step is forward pass, loss, backward pass and Adam on a batch of 64 windows of one series: 256 past steps, 4 % of them
missing, 10 future ones; three blocks of width 128 with 8 heads and feed-forward layers of 256, patches of 16 steps 8
apart, dropout .2. All forecast points and are trained on the mean absolute error but GluonTS, which forecasts Student-t
laws from a wider last layer.

A target is a position from which a forecast is learnt. Patch transformers have one in a window, its last. ``causal``,
qtorch's TemporalTransformer of the same size, with dropout where PatchTransformer has it, and ``recurrent``, a GRU as
wide, are trained on every position of a window at once, and have as many targets as steps that are not missing.

Each runs in a process of its own, under the first interpreter that has its library (this one, then those of --python).
Runs alternate, so that other work on the machine slows all alike; figures are medians over the rounds, and it is their
ratios that count. On a machine with other work take `--threads 1 --cpu`, which counts processor time. ``compiled``
compiles PatchTransformer and loss with torch.compile; its set-up takes a minute or more.
"""

import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker import Worker, arguments, chosen, interpreter

BATCH, CONTEXT, HORIZON = 64, 256, 10
WIDTH, DEPTH, HEADS, FEEDFORWARD, PATCH, STRIDE, DROPOUT = 128, 3, 8, 256, 16, 8, 0.2

Trained = tuple[Any, Callable[..., Any]]  # a module, and its loss of past, past_mask, future, future_mask


def ours() -> Trained:
    """Forecasts in units of the window's own scale, mapped back, as reversible instance normalisation does."""
    from qtorch.models import PatchTransformer
    from qtorch.nn import instance_norm

    model = PatchTransformer(
        1,
        context=CONTEXT,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        expansion=FEEDFORWARD // WIDTH,
        dropout=DROPOUT,
        input_noise=0.0,
        patch=PATCH,
        stride=STRIDE,
        out_features=HORIZON,
    )

    def loss(past: Any, past_mask: Any, future: Any, future_mask: Any) -> Any:
        usable = past_mask.bool()
        _, mean, deviation = instance_norm(past, usable)
        forecast = model(past.unsqueeze(-1), usable)[:, 0] * deviation[:, None] + mean[:, None]
        return ((forecast - future).abs() * future_mask).sum() / future_mask.sum()

    return model, loss


def compiled() -> Trained:
    """The same in one graph."""
    import torch

    model, loss = ours()
    return model, torch.compile(loss, fullgraph=True)


def causal() -> Trained:
    """A forecast from every position, by the transformer that sees single steps."""
    from qtorch.models import TemporalTransformer

    return everywhere(
        TemporalTransformer(
            1,
            width=WIDTH,
            depth=DEPTH,
            heads=HEADS,
            expansion=FEEDFORWARD // WIDTH,
            dropout=DROPOUT,
            input_noise=0.0,
            drop_weights=False,
        )
    )


def recurrent() -> Trained:
    """A forecast from every position, by a GRU."""
    from qtorch.models import Recurrent

    return everywhere(Recurrent(1, width=WIDTH, dropout=DROPOUT, input_noise=0.0))


def everywhere(encoder: Any) -> Trained:
    """The same loss over the next steps of every position, in units of the scale of the window up to there."""
    import torch

    model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.out_features, HORIZON))

    def loss(past: Any, past_mask: Any, future: Any, future_mask: Any) -> Any:
        usable, count = past_mask.bool(), past_mask.cumsum(1).clamp(min=1)
        mean = past.cumsum(1) / count
        deviation = (((past - mean).square() * past_mask).cumsum(1) / count + 1e-5).sqrt()
        hidden = encoder(((past - mean) / deviation).unsqueeze(-1), usable)
        forecast = model[1](hidden) * deviation.unsqueeze(-1) + mean.unsqueeze(-1)
        series, known = torch.cat([past, future], 1), torch.cat([past_mask, future_mask], 1)
        target, there = (x[:, 1:].unfold(1, HORIZON, 1) for x in (series, known))
        there = there * past_mask.unsqueeze(-1)
        return ((forecast - target).abs() * there).sum() / there.sum()

    return model, loss


def neuralforecast() -> Trained:
    """Its network and its own loss function."""
    from neuralforecast.models import PatchTST

    model = PatchTST(
        h=HORIZON,
        input_size=CONTEXT,
        encoder_layers=DEPTH,
        n_heads=HEADS,
        hidden_size=WIDTH,
        linear_hidden_size=FEEDFORWARD,
        dropout=DROPOUT,
        fc_dropout=DROPOUT,
        patch_len=PATCH,
        stride=STRIDE,
    )

    def loss(past: Any, past_mask: Any, future: Any, future_mask: Any) -> Any:
        window = {"insample_y": past.unsqueeze(-1), "insample_mask": past_mask.unsqueeze(-1)}
        forecast = model(window | dict.fromkeys(("futr_exog", "hist_exog", "stat_exog")))
        return model.loss(y=future.unsqueeze(-1), y_hat=model.loss.domain_map(forecast), mask=future_mask.unsqueeze(-1))

    return model, loss


def gluonts() -> Trained:
    """The network that its estimator trains, and that network's loss."""
    from gluonts.torch.model.patch_tst import PatchTSTEstimator

    model = (
        PatchTSTEstimator(
            prediction_length=HORIZON,
            context_length=CONTEXT,
            patch_len=PATCH,
            stride=STRIDE,
            d_model=WIDTH,
            nhead=HEADS,
            dim_feedforward=FEEDFORWARD,
            dropout=DROPOUT,
            num_encoder_layers=DEPTH,
            scaling="std",
        )
        .create_lightning_module()
        .model
    )

    def loss(past: Any, past_mask: Any, future: Any, future_mask: Any) -> Any:
        return model.loss(
            past_target=past,
            past_observed_values=past_mask,
            future_target=future,
            future_observed_values=future_mask,
        ).mean()

    return model, loss


@dataclass(frozen=True)
class Peer:
    """One of those compared: its label, the module it needs, what makes it, and if it forecasts from every position."""

    label: str
    needs: str
    make: Callable[[], Trained]
    everywhere: bool = False


PEERS = {
    "qtorch": Peer("qtorch", "qtorch", ours),
    "compiled": Peer("qtorch, compiled", "qtorch", compiled),
    "causal": Peer("qtorch, causal, every position", "qtorch", causal, everywhere=True),
    "recurrent": Peer("qtorch, GRU, every position", "qtorch", recurrent, everywhere=True),
    "neuralforecast": Peer("NeuralForecast", "neuralforecast", neuralforecast),
    "gluonts": Peer("GluonTS", "gluonts", gluonts),
}


def work(name: str) -> None:
    """A worker's side: its parameters and the targets of a sample, then samples per second for every run asked for."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # some libraries print
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.manual_seed(0)
    start = time.perf_counter()
    model, loss = PEERS[name].make()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    walk = 4 + 0.01 * torch.randn(BATCH, CONTEXT + HORIZON).cumsum(1)
    mask = (torch.rand(walk.shape) >= 0.04).float()
    past, future = (walk * mask).split((CONTEXT, HORIZON), 1)
    past_mask, future_mask = mask.split((CONTEXT, HORIZON), 1)

    def step() -> None:
        optimizer.zero_grad()
        loss(past, past_mask, future, future_mask).backward()
        optimizer.step()

    for _ in range(3):
        step()
    facts = {
        "setup": time.perf_counter() - start,
        "parameters": sum(p.numel() for p in model.parameters()),
        "targets": past_mask.sum().item() / BATCH if PEERS[name].everywhere else 1,
    }
    print(json.dumps(facts), file=answer, flush=True)
    while run := sys.stdin.readline().strip():
        steps, cpu = json.loads(run)
        clock = time.process_time if cpu else time.perf_counter
        start = clock()
        for _ in range(steps):
            step()
        print(BATCH * steps / (clock() - start), file=answer, flush=True)
    print(0, file=answer, flush=True)
    os._exit(0)  # some libraries leave threads behind


def table(names: list[str], pythons: list[str], rounds: int, steps: int, threads: int, cpu: bool) -> str:
    """Runs them by turns and lays the results out in Markdown."""
    workers: dict[str, Worker] = {}
    for name in names:
        python = interpreter(PEERS[name].needs, pythons)
        if python is None:
            print(f"{name}: no interpreter has {PEERS[name].needs}; see --python", file=sys.stderr)
            continue
        workers[name] = Worker(__file__, name, python, threads)
        print(f"{name}: set up in {workers[name].facts['setup']:.1f} s", file=sys.stderr)
    rates = [{name: worker.run(steps, cpu) for name, worker in workers.items()} for _ in range(rounds)]
    unit = "CPU s" if cpu else "s"
    lines = [
        f"| training step | samples/{unit} | of qtorch's | targets/{unit} | of qtorch's | parameters |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, worker in workers.items():
        samples = statistics.median(turn[name] for turn in rates)
        share = statistics.median(turn[name] / turn["qtorch"] for turn in rates)
        per_sample, parameters = worker.facts["targets"], worker.facts["parameters"]
        lines.append(
            f"| {PEERS[name].label} | {samples:,.0f} | {share:.2f} | {per_sample * samples:,.0f} | "
            f"{per_sample * share:.2f} | {parameters:,} |"
        )
        worker.stop()
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, PEERS, "qtorch", rounds=7)
    parser.add_argument("--steps", type=int, default=4, help="of training, a round")
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
    names, pythons = chosen(parser, args, PEERS, "qtorch")
    print(table(names, pythons, args.rounds, args.steps, args.threads, args.cpu))


if __name__ == "__main__":
    main()
