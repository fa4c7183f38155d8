"""A head that forecasts a cross-section: marginals of one head, dependence of a copula head."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from qtorch.distributions import JointDistribution
from qtorch.errors import ArgumentError
from qtorch.heads.attentional_copula import AttentionalCopulaHead
from qtorch.heads.copula import CopulaHead
from qtorch.heads.drawn_weights import DrawnWeights
from qtorch.heads.each_draw import EachDraw
from qtorch.heads.ensemble import Ensemble
from qtorch.heads.variational import Variational
from qtorch.heads.variational_location import VariationalLocation


class JointHead(nn.Module):
    """Maps the hidden states of all assets at a row to their joint law at every horizon.

    The horizons have marginals of their own and share one copula. For encoders in panel layout. It is trained as a
    whole by the joint log score, or in two stages, marginals first: train a `Forecaster` with the univariate head,
    freeze its encoder and head, and give both to a new one, in which the copula alone learns.

    Args:
        marginals: a univariate head of one law, such as `SkewedStudentT` or `FlowHead`, and no posterior.
        copula: a `CopulaHead` or an `AttentionalCopulaHead`, of the same `in_features`.

    Raises:
        ValueError: the second gives no copula, the first a posterior, or the two have hidden states of different
            widths.

    Example:
        >>> import torch
        >>> from qtorch.heads import SkewedStudentT
        >>> head = JointHead(SkewedStudentT(8, [1, 5]), CopulaHead(8, 2))
        >>> law = head(torch.zeros(3, 4, 8))
        >>> law.batch_shape, law.event_shape
        (torch.Size([3, 2]), torch.Size([4]))

        The second stage, of a head that a first one has trained; the encoder is frozen in the same way:

        >>> trained = SkewedStudentT(8, [1, 5]).requires_grad_(False)
        >>> second = JointHead(trained, CopulaHead(8, 2))
        >>> {name.split(".")[0] for name, value in second.named_parameters() if value.requires_grad}
        {'copula'}

        Dependence that no factors have, best in such a second stage too:

        >>> third = JointHead(trained, AttentionalCopulaHead(8))
        >>> third(torch.zeros(3, 4, 8)).sample((10,)).shape
        torch.Size([10, 3, 2, 4])

    References:
        Joe and Xu (1996), The estimation method of inference functions for margins for multivariate models, University
        of British Columbia, technical report 166; Ashok, Marcotte, Zantedeschi, Chapados and Drouin (2024), TACTiS-2:
        better, faster, simpler attentional copulas for multivariate time series, ICLR, for the two stages.
    """

    marginals: Any

    def __init__(self, marginals: nn.Module, copula: nn.Module) -> None:
        super().__init__()
        if not isinstance(copula, AttentionalCopulaHead | CopulaHead):
            raise ArgumentError(
                f"a {type(copula).__name__} gives no copula. Give a CopulaHead or an AttentionalCopulaHead; a "
                "CouplingFlowHead is a Forecaster's head without marginals."
            )
        if isinstance(marginals, DrawnWeights | EachDraw | Ensemble | Variational | VariationalLocation):
            raise ArgumentError(
                f"a {type(marginals).__name__} gives mixtures over what the model may be, of which a joint law would "
                "be trained by the mixture's score, and not draw by draw. Give a head of one law, such as "
                "SkewedStudentT, and mix whole forecasters by qtorch.training.Ensemble."
            )
        self.marginals, self.copula = marginals, copula
        if self.marginals.in_features != copula.in_features:
            raise ArgumentError(
                f"the marginals' in_features are {self.marginals.in_features}, the copula's {copula.in_features}. "
                "Give both the encoder's out_features."
            )

    @property
    def in_features(self) -> int:
        """Hidden width `D`."""
        return self.copula.in_features

    @property
    def horizons(self) -> tuple[int, ...]:
        """In sessions."""
        return self.marginals.horizons

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of `parameters_of`, in their order."""
        return *(f"copula_{name}" for name in self.copula.names), *self.marginals.names

    def parameters_of(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> tuple[Tensor, ...]:
        """Tensors `[*batch, N, H, ...]`: the copula's, the same at all horizons, and the marginals'.

        Args:
            hidden: of each asset.
            mask: which assets are there, all by default; the others have no say in what the others share.
        """
        axis, H = hidden.ndim - 1, len(self.horizons)
        shared = (part.unsqueeze(axis) for part in self.copula.parameters_of(hidden, mask))
        copula = (part.expand(*part.shape[:axis], H, *part.shape[axis + 1 :]) for part in shared)
        return *copula, *self.marginals.parameters_of(hidden)

    def distribution(self, *parameters: Tensor) -> JointDistribution:
        """The law, batch shape `[*batch, H]`, of the tensors of `parameters_of` with horizons before assets."""
        n = len(self.copula.names)
        return JointDistribution(
            self.marginals.distribution(*parameters[n:]), self.copula.distribution(*parameters[:n])
        )

    def dated(
        self, parameters: Sequence[Tensor], newest: Int64[Tensor, " D"], there: Bool[Tensor, "D H N"]
    ) -> tuple[Tensor, ...]:
        """Parameters `[D, H, N, ...]` of assets that come from rows of their own, as those of one row.

        Args:
            parameters: of each asset, from its last row.
            newest: the asset whose row is the last.
            there: which have a forecast.
        """
        n = len(self.copula.names)
        return *self.copula.dated(parameters[:n], newest, there), *parameters[n:]

    def forward(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> JointDistribution:
        """The joint law of standardised returns, batch shape `[*batch, H]`."""
        axis = hidden.ndim - 1
        return self.distribution(*(p.movedim(axis, axis - 1) for p in self.parameters_of(hidden, mask)))
