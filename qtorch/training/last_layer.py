"""What the last layer of a trained forecaster sees: hidden states, outcomes and their weights."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from qtorch.data.datamodule import DataModule, WindowDataset, WindowLoader
from qtorch.data.sampling import WindowBatches
from qtorch.errors import ArgumentError
from qtorch.heads.parametric import Parametric
from qtorch.training.forecaster import Forecaster


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The training data of an affine map with a law behind it.

    Attributes:
        hidden: hidden states `[Q, D]` of places that have an outcome.
        outcome: standardised returns `[Q, H]`, 0 where they are not observed.
        weight: one over the horizon, 0 where the outcome is not observed.
        date: rows of the panel of the places, `[Q]`, or None if they are not known.
    """

    hidden: Float[Tensor, "Q D"]
    outcome: Float[Tensor, "Q H"]
    weight: Float[Tensor, "Q H"]
    date: Int64[Tensor, " Q"] | None = None

    @property
    def observations(self) -> float:
        """The sum of the weights."""
        return float(self.weight.double().sum())

    def log_likelihood(self, head: Parametric, weights: Float[Tensor, "*K H size W"]) -> Float[Tensor, "*K"]:
        """The weighted log likelihood of affine maps, each with its bias last, `W = D + 1`."""
        raw = torch.einsum("...hsd,qd->...qhs", weights[..., :-1], self.hidden.to(weights.dtype))
        raw = raw + weights[..., -1].unsqueeze(-3)
        law = head.distribution(*head.constrain(raw))
        value = law.log_prob(self.outcome.to(weights.dtype))
        return (self.weight * torch.where(self.weight > 0, value, 0.0)).sum((-2, -1))

    def part(self, index: Tensor) -> "LastLayer":
        """Some of the places."""
        date = None if self.date is None else self.date[index]
        return LastLayer(self.hidden[index], self.outcome[index], self.weight[index], date)

    @classmethod
    @torch.no_grad()
    def of(cls, model: Forecaster, data: DataModule) -> "LastLayer":
        """That of a forecaster over its training windows.

        Each training window counts once, by the targets of its last session and the hidden state that it is forecast
        from there: so is each distinct target, however many windows show it in training.

        Raises:
            ValueError: the head is not parametric, or the model does not fit the data.
        """
        model.check(data)
        network = model.network
        if not isinstance(network.head, Parametric):
            raise ArgumentError(
                f"a posterior of the last layer needs a parametric head's affine map, and a "
                f"{type(network.head).__name__} has none. Give a trained forecaster with a head such as SkewedStudentT."
            )
        loader = WindowLoader(
            WindowDataset(data.source, data.training), WindowBatches(data.training.entries, 4 * data.batch_size)
        )
        device = next(network.parameters()).device
        horizons = torch.tensor(model.spec.horizons, dtype=torch.float32, device=device)
        training, parts = network.training, []
        network.eval()
        try:
            for window in loader:
                window = window.to(device)
                hidden = network.encoder(window.inputs, window.mask)[:, -1]
                outcome, mask = window.target, window.target_mask
                if network.layout == "panel":
                    outcome, mask = outcome.mT, mask.mT
                outcome = torch.where(mask, outcome / window.scale.unsqueeze(-1), 0.0)
                there = mask.any(-1)
                row = window.row_index.long()
                date = row if there.ndim == 1 else row.unsqueeze(-1).expand_as(there)
                parts.append((hidden[there].float(), outcome[there], (mask / horizons)[there], date[there]))
        finally:
            network.train(training)
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def affine_map(head: Parametric) -> Float[Tensor, "H size W"]:
    """A head's weights, each with its bias last, in float64."""
    both = torch.cat((head.project.weight, head.project.bias.unsqueeze(-1)), -1)
    return both.detach().double().unflatten(0, (len(head.horizons), head.size))


def with_head(model: Forecaster, head: nn.Module, encoder: nn.Module | None = None) -> Forecaster:
    """A forecaster as another, a copy of its encoder, or another, before another head, in evaluation mode."""
    made = Forecaster(
        copy.deepcopy(model.network.encoder) if encoder is None else encoder,
        head,
        model.spec,
        schedule=model.schedule,
        weight_decay=model.weight_decay,
        objective=model.objective,
        augmentation=model.augmentation,
        observations=model.observations,
    ).eval()
    made.trained_on = model.trained_on
    return made
