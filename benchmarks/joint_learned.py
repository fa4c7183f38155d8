"""A joint forecaster of the default recipe, with a copula learned from embeddings of the assets."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.data import Panel, WindowSpec
from qtorch.data.features import Features, Label
from qtorch.heads import CopulaHead, JointHead, SkewedStudentT
from qtorch.models import Recurrent, default_windows
from qtorch.models.defaults import default_schedule
from qtorch.training import Forecaster


class Embedded(nn.Module):
    """The default encoder of each asset by itself, beside an embedding of which asset it is.

    Args:
        in_features: inputs, of which the last tell the asset.
        labels: how many.
        width: of the embedding.
    """

    layout: ClassVar[str] = "panel"
    causal: ClassVar[bool] = True

    def __init__(self, in_features: int, labels: int, width: int) -> None:
        super().__init__()
        self.in_features, self.labels, self.width = in_features, labels, width
        self.own = Recurrent(in_features - labels, input_noise=0.1)
        self.embedding = nn.Linear(labels, width, bias=False)

    @property
    def out_features(self) -> int:
        """The widths of both."""
        return self.own.out_features + self.width

    def forward(self, inputs: Float[Tensor, "B C N F"], mask: Bool[Tensor, "B C N"]) -> Float[Tensor, "B C N D"]:
        """Hidden states, 0 where masked."""
        B, _, N, _ = inputs.shape
        rows = inputs[..., : -self.labels].transpose(1, 2).flatten(0, 1)
        own = self.own(rows, mask.transpose(1, 2).flatten(0, 1)).unflatten(0, (B, N)).transpose(1, 2)
        label = torch.where(mask.unsqueeze(-1), inputs[..., -self.labels :], 0.0)
        return torch.cat((own, self.embedding(label)), dim=-1)


def labelled_windows(panel: Panel) -> WindowSpec:
    """The default windows of one session, and which asset it is."""
    spec = default_windows(panel, horizons=(1,))
    label = Label.of_assets("asset", {asset: asset for asset in panel.assets})
    return WindowSpec(spec.context, spec.horizons, Features((*spec.features.parts, label)))


def learned(panel: Panel, spec: WindowSpec, factors: int, width: int) -> Forecaster:
    """A fresh model, to be trained by the joint log score."""
    encoder = Embedded(len(spec.features), len(panel.assets), width)
    head = JointHead(SkewedStudentT(encoder.out_features, spec.horizons), CopulaHead(encoder.out_features, factors))
    return Forecaster(encoder, head, spec, schedule=default_schedule())
