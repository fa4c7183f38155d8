"""A Gaussian over all weights, fitted to where training wanders at a constant rate."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import lightning
import torch
from jaxtyping import Float, Float64
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from qtorch.data.datamodule import DataModule
from qtorch.distributions.checks import require
from qtorch.heads import Ensemble
from qtorch.models.encoder_ensemble import EncoderEnsemble
from qtorch.training.checkpoints import EpochSeeds
from qtorch.training.forecaster import Forecaster
from qtorch.training.last_layer import with_head
from qtorch.training.optimisation import Schedule
from qtorch.training.trainer import quiet


@dataclass(eq=False)
class Snapshots:
    """Running moments of vectors, and how the latest of them differ from the mean at their time.

    Attributes:
        rank: differences that are kept, R.
        count: vectors so far.
        mean: theirs, `[P]`.
        square: the mean of their squares.
        deviations: the latest vectors less the mean up to and with each, at most R.
    """

    rank: int
    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    square: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    deviations: list[Tensor] = field(default_factory=list)

    def add(self, vector: Float[Tensor, " P"]) -> None:
        """One vector more."""
        value = vector.detach().cpu().double()
        self.count += 1
        self.mean = self.mean + (value - self.mean) / self.count
        self.square = self.square + (value.square() - self.square) / self.count
        self.deviations = [*self.deviations, value - self.mean][-self.rank :]

    def moments(self) -> tuple[Float64[Tensor, " P"], Float64[Tensor, " P"], Float64[Tensor, "P R"]]:
        """The mean, each weight's variance, and the latest deviations: what `gaussian_draws` takes."""
        variance = (self.square - self.mean.square()).clamp(min=0.0)  # rounding
        return self.mean, variance, torch.stack(self.deviations, 1)


def gaussian_draws(
    mean: Float64[Tensor, " P"],
    variance: Float64[Tensor, " P"],
    deviations: Float64[Tensor, "P R"],
    count: int,
    seed: int = 0,
) -> Float64[Tensor, "K P"]:
    """Draws of N(mean, (diag(v) + D D' / (R - 1)) / 2), repeatable: `Swag`'s posterior of any vector of weights."""
    P, R = deviations.shape
    generator = torch.Generator().manual_seed(seed)
    own, common = (torch.randn(count, n, generator=generator, dtype=torch.float64) for n in (P, R))
    return mean + own * (0.5 * variance).sqrt() + common @ deviations.mT / math.sqrt(2 * (R - 1))


@dataclass(frozen=True, eq=False)
class Swag:
    """Weights' posterior as N(mean, (diag(v) + D D' / (R - 1)) / 2), of snapshots of a training at a constant rate.

    There are no batch norms in qtorch, whose statistics each draw would have to learn anew; an encoder with one is
    refused.

    Attributes:
        base: the forecaster that the training began with.
        mean: of the snapshots, `P` weights.
        variance: v, of each weight.
        deviations: D, the last R snapshots less the mean at their time.

    References:
        Maddox, Garipov, Izmailov, Vetrov and Wilson (2019), A simple baseline for Bayesian uncertainty in deep
        learning, NeurIPS, algorithm 1 and equation 1.
    """

    base: Forecaster
    mean: Float64[Tensor, " P"]
    variance: Float64[Tensor, " P"]
    deviations: Float64[Tensor, "P R"]

    @classmethod
    def fit(
        cls,
        forecaster: Forecaster,
        datamodule: DataModule,
        *,
        snapshots: int = 40,
        every: int = 50,
        rank: int = 20,
        learning_rate: float = 1e-3,
        draws: int = 30,
        chunk: int | None = None,
        seed: int = 0,
        accelerator: str = "auto",
    ) -> Forecaster:
        """A trained forecaster made to know how sure its weights are: it forecasts the mixture over draws.

        The posterior itself, from which more can be drawn without a training, is given by `of`.

        Args:
            forecaster: trained, with a parametric head; it stays as it is.
            datamodule: what it was trained on.
            snapshots: of the weights.
            every: steps from one to the next.
            rank: R, at most as many.
            learning_rate: constant; the higher, the wider the posterior.
            draws: K.
            chunk: as of `forecaster`.
            seed: of dropout, noise and draws.
            accelerator: as of Lightning.

        Raises:
            TypeError: the head is not parametric.
            ValueError: as of `of` and `forecaster`.
            FloatingPointError: a loss is not finite.
        """
        require(draws >= 1, "draws", draws, "give the number of draws, such as 30")  # before the work, not after it
        posterior = cls.of(
            forecaster,
            datamodule,
            snapshots=snapshots,
            every=every,
            rank=rank,
            learning_rate=learning_rate,
            seed=seed,
            accelerator=accelerator,
        )
        return posterior.forecaster(draws, seed, chunk)

    @classmethod
    def of(
        cls,
        forecaster: Forecaster,
        datamodule: DataModule,
        *,
        snapshots: int = 40,
        every: int = 50,
        rank: int = 20,
        learning_rate: float = 1e-3,
        seed: int = 0,
        accelerator: str = "auto",
    ) -> "Swag":
        """Trains a copy of a trained forecaster on, at a constant rate, and takes snapshots of its weights.

        Steps are those of `qtorch.training.fit`: AdamW, with gradients clipped at norm 1.

        Args:
            forecaster: trained, with a parametric head; it stays as it is.
            datamodule: what it was trained on.
            snapshots: of the weights.
            every: steps from one to the next.
            rank: R, at most as many.
            learning_rate: constant; the higher, the wider the posterior.
            seed: of dropout and noise.
            accelerator: as of Lightning.

        Raises:
            TypeError: the head is not parametric.
            ValueError: a setting is out of bounds, the encoder has buffers in its state, or the model does not fit the
                data.
            FloatingPointError: a loss is not finite.
        """
        require(every >= 1, "every", every, "give a number of steps, such as 50")
        require(2 <= rank <= snapshots, "rank", rank, f"give at least 2 and at most the snapshots, {snapshots}")
        forecaster.check(datamodule)
        model = with_head(forecaster, copy.deepcopy(forecaster.network.head))
        _together([model.network])  # before the work, not after it
        model.schedule = Schedule(learning_rate, warm_up=0.0, final=1.0)
        kept = Snapshots(rank)
        with quiet():
            trainer = lightning.Trainer(
                accelerator=accelerator,
                devices=1,
                max_steps=snapshots * every,
                max_epochs=-1,
                gradient_clip_val=1.0,
                callbacks=[EpochSeeds(seed), _Keep(kept, every)],
                enable_checkpointing=False,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=0,
            )
            trainer.fit(model.train(), datamodule=datamodule)
        datamodule.trainer = None  # else it would keep the optimiser alive
        return cls(forecaster, *kept.moments())

    def draws(self, count: int, seed: int = 0) -> Float64[Tensor, "K P"]:
        """Vectors of weights from the posterior, in the order of the network's parameters; repeatable."""
        return gaussian_draws(self.mean, self.variance, self.deviations, count, seed)

    def forecaster(self, draws: int = 30, seed: int = 0, chunk: int | None = None) -> Forecaster:
        """The forecaster of the mixture over draws of all weights, in evaluation mode.

        Args:
            draws: K.
            seed: of the draws.
            chunk: draws that are evaluated at once, fewer take less memory; None is all.

        Raises:
            ValueError: there is no draw.
        """
        require(draws >= 1, "draws", draws, "give the number of draws, such as 30")
        networks = []
        for vector in self.draws(draws, seed):
            network = copy.deepcopy(self.base.network)
            of_one = next(network.parameters())
            vector_to_parameters(vector.to(of_one.device, of_one.dtype), network.parameters())
            networks.append(network)
        encoder, head = _together(networks, chunk)
        return with_head(self.base, head, encoder)


def _together(networks: list[Any], chunk: int | None = None) -> tuple[nn.Module, nn.Module]:
    """One encoder and one head, whose members are those of the networks."""
    encoder = EncoderEnsemble.of([network.encoder for network in networks], chunk)
    return encoder, Ensemble.of([network.head for network in networks])


class _Keep(Callback):
    """Takes a snapshot after every so many steps."""

    def __init__(self, snapshots: Snapshots, every: int) -> None:
        self.snapshots, self.every = snapshots, every

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the step."""
        if trainer.global_step % self.every == 0:
            self.snapshots.add(parameters_to_vector(pl_module.network.parameters()))
