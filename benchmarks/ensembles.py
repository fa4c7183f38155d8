"""Cost of a training step of an ensemble in one network over that of one member.

    python benchmarks/ensembles.py [--members 5] [--rounds 5]

Forward, backward and an AdamW step on one thread, in processor time, for the default forecaster's recurrent encoder and
the causal transformer on 64 windows of 64 sessions and 38 inputs, with a skewed Student-t head at every position, and
for two layers of 64 units with SiLU on 64 rows of 10 inputs. Three steps of one member, of the ensemble and of a loop
over as many members alternate; ratios are of the least times over the rounds.
"""

import argparse
import time
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch import heads, models
from qtorch.training import Network
from qtorch.training.clipping import clip_members
from qtorch.training.optimisation import Schedule, adamw


class Layers(nn.Module):
    """Two layers of 64 units, on a window's last session."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, 64
        self.layers = nn.Sequential(nn.Linear(in_features, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())

    def forward(self, inputs: Float[Tensor, "B C F"], mask: Bool[Tensor, "B C"]) -> Float[Tensor, "B C 64"]:
        """Hidden states of every position."""
        return self.layers(inputs)


BLOCK = 3  # steps in a row, as in training: the first after another model's waits for memory

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "recurrent": (lambda: models.Recurrent(38, input_noise=0.1), (64, 64, 38)),
    "transformer": (lambda: models.Transformer(38, drop_weights=False), (64, 64, 38)),
    "two layers": (lambda: Layers(10), (64, 1, 10)),
}


def stepper(network: Network, inputs: Tensor) -> Callable[[], None]:
    """One training step, of a loss whose gradients reach every parameter."""
    mask = torch.ones(inputs.shape[:2], dtype=torch.bool)
    optimizer, _ = adamw(network, Schedule(), 0.01, 1000)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack([value.square().mean() for value in network(inputs, mask, True)]).sum().backward()
        if not clip_members(network, 1.0):
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    K = args.members
    for name, (encoder, shape) in CASES.items():
        first = encoder()
        width, inputs = int(str(first.out_features)), torch.randn(shape)
        one = stepper(Network(encoder(), heads.SkewedStudentT(width, (1, 10))), inputs)
        together = models.EncoderEnsemble(first, K), heads.Ensemble(heads.SkewedStudentT(width, (1, 10)), K)
        several = stepper(Network(*together), inputs)
        least = [float("inf")] * 3
        for _ in range(args.rounds):
            for k, (step, times) in enumerate(((one, 1), (several, 1), (one, K))):
                for _ in range(BLOCK):
                    start = time.process_time()
                    for _ in range(times):
                        step()
                    least[k] = min(least[k], time.process_time() - start)
        single, ensemble, loop = least
        print(
            f"{name:12} one {1e3 * single:7.2f} ms, {K} together {1e3 * ensemble:7.2f} ms, ratio "
            f"{ensemble / single:.2f}; in a loop {loop / single:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
