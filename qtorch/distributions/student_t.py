"""Student's t distribution."""

import torch
from torch import Tensor
from torch.distributions import constraints

from qtorch.distributions.student_t_functions import t_icdf, t_log_prob
from qtorch.distributions.two_piece_student_t import Double, TwoPieceStudentT


class StudentT(TwoPieceStudentT):
    """Student's t with location and scale; unlike torch's it has cdf, icdf and tail means, and is right in float32.

    Args:
        df: degrees of freedom, positive; the mean exists above 1, the variance above 2.
        loc: the median.
        scale: factor of the standard law, positive; not the standard deviation.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a parameter is outside its domain or not finite.

    Example:
        >>> d = StudentT(4.0, 0.0, 0.01)
        >>> round(d.icdf(torch.tensor(0.01)).item(), 5)
        -0.03747
        >>> round(d.log_cdf(torch.tensor(-0.5)).item(), 3)  # 50 scales out
        -14.552
    """

    df: Tensor
    loc: Tensor
    scale: Tensor
    arg_constraints = {"df": constraints.positive, "loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(df=df, loc=loc, scale=scale, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`, in the dtype of value and parameters."""
        return t_log_prob((value - self.loc) / self.scale, self.df) - torch.log(self.scale)

    def _pieces(self) -> tuple[Double, Double, Double, Double]:
        df, loc, scale = self._doubles()
        return df, loc, scale, scale

    def _icdf(self, p: Double) -> Double:
        df, loc, scale = self._doubles()
        return loc + scale * t_icdf(p, df)

    def _mean(self) -> Double:
        df, loc, _ = self._doubles()
        return torch.where(df > 1, loc, torch.nan)
