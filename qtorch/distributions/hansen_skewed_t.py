"""Hansen's skewed Student-t distribution."""

import torch
from torch import Tensor
from torch.distributions import constraints

from qtorch.distributions.student_t_functions import t_mean_abs
from qtorch.distributions.two_piece_student_t import Double, TwoPieceStudentT


class HansenSkewedT(TwoPieceStudentT):
    """Hansen's skewed Student-t, standardised: loc is the mean and scale the standard deviation.

    Two halves of Student's t whose scales are as 1 - lambda to 1 + lambda, moved and scaled. A negative lambda makes
    the left tail the heavier. `arch`'s SkewStudent is this law.

    Args:
        df: degrees of freedom eta, above 2.
        skew: lambda, between -1 and 1; 0 is symmetric.
        loc: mean.
        scale: standard deviation, positive.
        validate_args: False skips the check of the parameters.

    Raises:
        ValueError: a parameter is outside its domain or not finite.

    References:
        Hansen (1994), Autoregressive conditional density estimation, International Economic Review 35, equations 10 to
        13.

    Example:
        >>> d = HansenSkewedT(torch.tensor(5.0), -0.1, 0.0, 0.01)
        >>> round(d.icdf(torch.tensor(0.01)).item(), 5)
        -0.02783
    """

    df: Tensor
    skew: Tensor
    loc: Tensor
    scale: Tensor
    arg_constraints = {
        "df": constraints.greater_than(2.0),
        "skew": constraints.interval(-1.0, 1.0),
        "loc": constraints.real,
        "scale": constraints.positive,
    }

    def __init__(
        self,
        df: Tensor | float,
        skew: Tensor | float = 0.0,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(df=df, skew=skew, loc=loc, scale=scale, validate_args=validate_args)

    def _pieces(self) -> tuple[Double, Double, Double, Double]:
        eta, skew, loc, scale = self._doubles()
        # Halves of scales unit (1 -+ lambda) have mean 2 lambda unit E|T| and second moment unit^2 (1 + 3 lambda^2)
        # eta / (eta - 2); unit makes the variance that of scale.
        shift = 2 * skew * t_mean_abs(eta)
        unit = scale / torch.sqrt(eta / (eta - 2) * (1 + 3 * skew**2) - shift**2)
        return eta, loc - unit * shift, unit * (1 - skew), unit * (1 + skew)
