"""Base laws of flows, as modules."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from qtorch.distributions.common_shock import CommonShock
from qtorch.distributions.student_t import StudentT
from qtorch.distributions.tail_index import tail_index
from qtorch.distributions.transforms.student_tails import heavier
from qtorch.errors import ArgumentError

_LEAST_INDEX, _ROWS, _EM_STEPS = 0.002, 10_000, 10


def default_base(features: int, tails: bool) -> nn.Module:
    """A common shock behind a layer of heavy tails, independent normals without one."""
    return CommonShockBase(features) if tails else NormalBase(features)


class NormalBase(nn.Module):
    """Independent standard normals.

    Args:
        features: coordinates D.
    """

    zero: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("zero", torch.zeros(features), persistent=False)

    def forward(self, batch_shape: torch.Size = torch.Size()) -> Distribution:
        """The law with a batch shape."""
        zero = self.zero.expand(*batch_shape, -1)
        return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1, validate_args=False)


class CommonShockBase(nn.Module):
    """Light-tailed coordinates that one shock makes large together, with its index and their correlations learned.

    Behind a `TailLayer` of the same indices stands a multivariate t; with an index near 0 the base is a normal law, so
    that data without a common shock lose nothing. Before `initialise` its coordinates are all but independent normals.

    Args:
        features: coordinates D.

    References:
        McNeil, Frey and Embrechts (2015), Quantitative Risk Management, sections 6.2 and 6.3.
        Laszkiewicz, Lederer and Fischer (2022), Marginal tail-adaptive normalizing flows, ICML, for bases whose
        coordinates, unlike these, are independent.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.log_index = nn.Parameter(torch.tensor(math.log(_LEAST_INDEX)))
        self.factor = nn.Parameter(torch.zeros(features, features))

    @property
    def index(self) -> Float[Tensor, ""]:
        """The tail index xi of the shock, 1 / df of the multivariate t behind the law."""
        return torch.exp(self.log_index)

    def forward(self, batch_shape: torch.Size = torch.Size()) -> Distribution:
        """The law with a batch shape."""
        whitening = self.factor.tril(-1) + torch.diag(torch.exp(self.factor.diagonal()))
        return CommonShock(self.index.expand(batch_shape), whitening)

    @torch.no_grad()
    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Index and correlations that make light-tailed data likeliest, of 30 indices, on 10,000 rows at most.

        The scale matrix of a multivariate t of known degrees of freedom comes from expectation maximisation.

        Raises:
            ValueError: there are fewer than 20 rows, or not finite ones.
        """
        if len(data) < 20 or not torch.isfinite(data).all():
            raise ArgumentError(f"{len(data)} rows of data: a common shock needs at least 20 rows, all finite.")
        z = data.double()[:: -(-len(data) // _ROWS)]
        best = z.new_tensor(-torch.inf)
        for xi in torch.logspace(math.log10(_LEAST_INDEX), math.log10(0.6), 30, dtype=torch.float64, device=z.device):
            y = z * torch.exp(heavier(z, xi)[0])
            whitening = torch.eye(self.features, dtype=torch.float64, device=z.device)
            for _ in range(_EM_STEPS):
                weight = (1 + xi * self.features) / (1 + xi * (y @ whitening.mT).square().sum(-1, keepdim=True))
                scatter = (weight * y).mT @ y / len(y)
                scatter.diagonal().add_(1e-6 * scatter.diagonal().mean())
                root = torch.linalg.cholesky(scatter)
                whitening = torch.linalg.solve_triangular(root, torch.eye(self.features).to(z), upper=False)
            found = CommonShock(xi, whitening).log_prob(z).mean()
            if found > best:
                best = found
                self.log_index.copy_(torch.log(xi))
                self.factor.copy_(whitening.tril(-1) + torch.diag(torch.log(whitening.diagonal())))


class StudentTBase(nn.Module):
    """Independent Student's t, with learned degrees of freedom.

    Args:
        features: coordinates D.
        shared: one df for all, as in a TAF; each its own, as in a gTAF, by default.
        learned: False keeps what `initialise` estimates, as in an mTAF.

    As base of ``AffineFlow(D, tails=False, autoregressive=True, base=...)`` it makes a TAF (`shared`), a gTAF (neither)
    or an mTAF (not `learned`, after `initialise`). An mTAF's authors also keep light coordinates from depending on
    heavy ones: give the data with its coordinates in order of their tail indices, and ``transforms=1``, whose layer
    reads them in the order in which they come.

    References:
        Jaini, Kobyzev, Yu and Brubaker (2020), Tails of Lipschitz triangular flows, ICML.
        Laszkiewicz, Lederer and Fischer (2022), Marginal tail-adaptive normalizing flows, ICML.
    """

    def __init__(self, features: int, shared: bool = False, learned: bool = True) -> None:
        super().__init__()
        self.features, self.shared, self.learned = features, shared, learned
        self.log_df = nn.Parameter(torch.full((1 if shared else features,), math.log(10.0)), requires_grad=learned)

    def forward(self, batch_shape: torch.Size = torch.Size()) -> Distribution:
        """The law with a batch shape."""
        df = torch.exp(self.log_df).expand(*batch_shape, self.features)
        return Independent(StudentT(df, validate_args=False), 1, validate_args=False)

    @torch.no_grad()
    def initialise(self, data: Float[Tensor, "T D"]) -> None:
        """Degrees of freedom from extreme-value estimates of both tails, the heavier one of each coordinate.

        Raises:
            ValueError: fewer than 20 rows, or not finite ones.
        """
        centred = data.double() - data.double().median(0).values
        xi = torch.maximum(tail_index(centred), tail_index(-centred)).clamp(0.02, 0.9)
        self.log_df.copy_(-torch.log(xi if len(self.log_df) > 1 else xi.max(0, keepdim=True).values))
