"""What a method is: it fits a split with a seed, and gives its law of the outcomes of rows."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.distributions import Distribution

from benchmarks.regression.data import Split
from qtorch.distributions import take


class Fitted(NamedTuple):
    """A method's law of the outcomes of rows, and how many epochs and seconds it was trained."""

    predict: Callable[[Tensor], Distribution]
    epochs: int
    seconds: float


Fit = Callable[[Split, int], Fitted]


class Method(NamedTuple):
    """How a split is fitted, the package that it needs, and whether the rows must be a series in time."""

    fit: Fit
    needs: str = "torch"
    of_series: bool = False


def marginal(network: nn.Module) -> Callable[[Tensor], Distribution]:
    """The law of the one horizon."""
    return lambda x: take(network(x), (slice(None), 0))
