"""A head that forecasts a cross-section: marginals of one head, dependence of a copula head."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions import JointDistribution
from qtorch.heads.copula import CopulaHead


class JointHead(nn.Module):
    """Maps the hidden states of all assets at a row to their joint law at every horizon.

    The horizons have marginals of their own and share one copula. For encoders in panel layout. It is trained as a
    whole by the joint log score, or in two stages, marginals first: train a `Forecaster` with the univariate head,
    freeze its encoder and head, and give both to a new one, in which the copula alone learns.

    Args:
        marginals: a univariate head, such as `SkewedStudentT` or `FlowHead`.
        copula: a `CopulaHead` of the same `in_features`.

    Raises:
        ValueError: the second is no `CopulaHead`, or the two have hidden states of different widths.

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

    References:
        Joe and Xu (1996), The estimation method of inference functions for margins for multivariate models, University
        of British Columbia, technical report 166; Ashok, Marcotte, Zantedeschi, Chapados and Drouin (2024), TACTiS-2:
        better, faster, simpler attentional copulas for multivariate time series, ICLR, for the two stages.
    """

    marginals: Any

    def __init__(self, marginals: nn.Module, copula: nn.Module) -> None:
        super().__init__()
        if not isinstance(copula, CopulaHead):
            raise ValueError(
                f"a {type(copula).__name__} gives no copula of factors, which forecasts are of. Give a CopulaHead; "
                "other joint heads are called and trained by themselves."
            )
        self.marginals, self.copula = marginals, copula
        if self.marginals.in_features != copula.in_features:
            raise ValueError(
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

    def parameters_of(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> tuple[Tensor, ...]:
        """Tensors of df `[*batch, N, H]`, the same for all assets, of loadings `[*batch, N, H, R]`, and the marginals'.

        Args:
            hidden: of each asset.
            mask: which assets are there, all by default; the others have no say in df.
        """
        df, loadings = self.copula.parameters_of(hidden, mask)
        H = len(self.horizons)
        df = df[..., None, None].expand(*hidden.shape[:-1], H)
        loadings = loadings.unsqueeze(-2).expand(*hidden.shape[:-1], H, -1)
        return df, loadings, *self.marginals.parameters_of(hidden)

    def distribution(
        self, df: Float[Tensor, "*batch H N"], loadings: Float[Tensor, "*batch H N R"], *marginals: Tensor
    ) -> JointDistribution:
        """The law, batch shape `[*batch, H]`, of the parameters of `parameters_of` with the horizons before the assets.

        The degrees of freedom are those of the first asset.
        """
        return JointDistribution(
            self.marginals.distribution(*marginals), self.copula.distribution(df[..., 0], loadings)
        )

    def forward(
        self, hidden: Float[Tensor, "*batch N D"], mask: Bool[Tensor, "*batch N"] | None = None
    ) -> JointDistribution:
        """The joint law of standardised returns, batch shape `[*batch, H]`."""
        axis = hidden.ndim - 1
        return self.distribution(*(p.movedim(axis, axis - 1) for p in self.parameters_of(hidden, mask)))
