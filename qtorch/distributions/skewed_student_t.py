"""The two-piece skewed Student-t distribution."""

import torch
from torch import Tensor
from torch.distributions import constraints

from qtorch.distributions.student_t_functions import t_log_prob
from qtorch.distributions.two_piece_student_t import Double, TwoPieceStudentT


class SkewedStudentT(TwoPieceStudentT):
    """Two-piece skewed Student-t of Fernandez and Steel.

    f(x) = 2 / (gamma + 1/gamma) / scale * [t(gamma z) if z < 0 else t(z / gamma)], z = (x - loc) / scale, with t the
    density of Student's t with df degrees of freedom. gamma < 1 makes the left tail the heavier; loc is the mode.

    Args:
        df: degrees of freedom, above 1.
        loc: mode.
        scale: positive; the standard deviation is scale * sqrt(df / (df - 2)) where skew = 1.
        skew: gamma, positive; 1 is symmetric.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a parameter is outside its domain or not finite.

    References:
        Fernandez and Steel (1998), On Bayesian modeling of fat tails and skewness, Journal of the American
        Statistical Association 93, equations 1 to 5.

    Example:
        >>> d = SkewedStudentT(torch.tensor(5.0), 0.0, 0.01, 0.9)
        >>> round(d.cdf(d.icdf(torch.tensor(0.01))).item(), 6)
        0.01
    """

    df: Tensor
    loc: Tensor
    scale: Tensor
    skew: Tensor
    arg_constraints = {
        "df": constraints.greater_than(1.0),
        "loc": constraints.real,
        "scale": constraints.positive,
        "skew": constraints.positive,
    }

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        skew: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(df=df, loc=loc, scale=scale, skew=skew, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`, in the dtype of value and parameters."""
        z = (value - self.loc) / self.scale
        z = torch.where(z < 0, z * self.skew, z / self.skew)
        return t_log_prob(z, self.df) + torch.log(2 / (self.skew + 1 / self.skew)) - torch.log(self.scale)

    def _pieces(self) -> tuple[Double, Double, Double, Double]:
        df, loc, scale, gamma = self._doubles()
        return df, loc, scale / gamma, scale * gamma
