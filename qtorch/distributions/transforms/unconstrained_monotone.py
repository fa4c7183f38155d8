"""The integral of a positive network."""

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.distributions.quadrature import along, legendre
from qtorch.distributions.transforms.affine import MAX_LOG_SCALE
from qtorch.distributions.transforms.bijection import Bijection, Values, promoted
from qtorch.distributions.transforms.numeric_inverse import continued, continued_bracket, solve

MAX_UNITS = 8
_RULES = [legendre(16 + 8 * units) for units in range(MAX_UNITS + 1)]


class UnconstrainedMonotone(Bijection):
    """y = a + int_0^x g(t) dt with a positive network g on [-bound, bound], and the tangents of y beyond.

    log g(t) = 5 tanh(n(t) / 5), where n(t) = b + sum_j 2 tanh(c_j / 2) tanh(exp(tanh(w_j) / 2) (H t / bound - t_j -
    tanh(v_j))) has units j at stations t_j that stand 2 apart. a, b, c, v and w are the parameters; with all of them 0
    the map is the identity. Their bounds bound the error of the integral, a Gauss-Legendre sum of 16 + 8 H nodes
    between 0 and x: log dy/dx and the ladj, which is log g(x), are 1e-8 apart at most for H = 4, whatever the
    parameters, and 1e-12 for parameters of the size of 1.

    Args:
        parameters: `[3 H + 2, ...]` for 1 to 8 units H: a, b, then c, v and w.
        bound: half the side of the box.

    Raises:
        ValueError: the number of parameters is not that of 1 to 8 units.

    References:
        Wehenkel and Louppe (2019), Unconstrained monotonic neural networks, NeurIPS.

    Example:
        >>> UnconstrainedMonotone(torch.zeros(26, 2))(torch.tensor([0.3, 50.0]))
        tensor([ 0.3000, 50.0000])
    """

    def __init__(self, parameters: Float[Tensor, "P ..."], bound: float = 5.0) -> None:
        super().__init__()
        count = parameters.shape[0]
        fits = count % 3 == 2 and 2 < count <= self.size(MAX_UNITS)
        require(fits, "parameters.shape[0]", count, f"H units, 1 to {MAX_UNITS}, take 3 H + 2 parameters")
        self.parameters, self.bound = promoted(parameters), bound

    @staticmethod
    def size(units: int) -> int:
        """Parameters of one map."""
        return 3 * units + 2

    def call_and_ladj(self, x: Values) -> tuple[Values, Values]:
        """The value y(x) and log dy/dx."""
        x = promoted(x)
        return continued(self._integral, x.expand(self._shape(x)), self.bound)

    def inv_and_ladj(self, y: Values) -> tuple[Values, Values]:
        """The x with y(x) = y and log dx/dy."""
        y = promoted(y)
        y = y.expand(self._shape(y))
        bracket = continued_bracket(self._integral, y, self.bound)
        return solve(lambda x: continued(self._integral, x, self.bound), y, *bracket)

    def _shape(self, x: Tensor) -> torch.Size:
        return torch.broadcast_shapes(x.shape, self.parameters.shape[1:])

    def _integral(self, x: Values) -> tuple[Values, Values]:
        nodes, weights = (along(rule, x).to(x.dtype) for rule in _RULES[self.parameters.shape[0] // 3])
        slopes = torch.exp(self._log_slope(nodes * x))
        return self.parameters[0] + x * (weights * slopes).sum(0), self._log_slope(x)

    def _log_slope(self, t: Values) -> Values:
        b, units = self.parameters[1], self.parameters[2:].unflatten(0, (3, -1))
        H = units.shape[1]
        net = b + torch.zeros_like(t)
        for j, (c, v, w) in enumerate(units.unbind(1)):
            from_station = t * (H / self.bound) - (2 * j + 1 - H) - torch.tanh(v)
            net = net + 2 * torch.tanh(c / 2) * torch.tanh(torch.exp(0.5 * torch.tanh(w)) * from_station)
        return MAX_LOG_SCALE * torch.tanh(net / MAX_LOG_SCALE)  # smooth, as the quadrature needs it
