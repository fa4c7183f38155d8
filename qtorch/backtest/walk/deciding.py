"""What refit allocators decide through a walk, on each date around what is held by then."""

from collections.abc import Callable, Iterable, Sequence

import pandas as pd
import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.backtest.rebalancing import WalkForward
from qtorch.backtest.walk.refitting import Weights
from qtorch.backtest.walked import Walked
from qtorch.data import Panel
from qtorch.training import Allocator
from qtorch.training.refit import modules


def decided(
    panel: Panel,
    make_model: Callable[[], Allocator],
    spans: Sequence[tuple[int, int]],
    of_seeds: Sequence[Sequence[Weights]],
) -> pd.DataFrame:
    """The weights at all dates of a walk, one row a date and one column an asset: the mean over the seeds.

    The mean keeps to constraints that each keeps to, as those of convex layers, since all are asked around the same
    holdings.

    Args:
        panel: the market.
        make_model: makes a fresh allocator.
        spans: of each refit its row, and that after its last date.
        of_seeds: of each seed the weights of its refits.

    Raises:
        DataError: the universe is empty at a date.
        ValueError: no weights keep to the constraints at a date, or the account loses all it has.
    """
    with torch.random.fork_rng(devices=[]):
        models = [[_with(make_model(), weights) for weights in of_one] for of_one in of_seeds]
    of_refits = zip(spans, zip(*models, strict=True), strict=True)
    deciding = _Deciding(panel, {row: (stop, of_refit) for (row, stop), of_refit in of_refits})
    first, last = spans[0][0], spans[-1][1] - 1
    held = torch.zeros(len(panel.assets), dtype=torch.float64, device=panel.values.device)
    if first < last:
        account = WalkForward(1, panel.dates[first + 1], panel.dates[last], models[0][0].costs)
        held = account.run(panel, deciding).final
    deciding(panel, last, held)  # on its last row, after which nothing is earned, the account does not trade
    weights = torch.stack(deciding.weights).cpu().numpy()
    return pd.DataFrame(weights, index=panel.dates[first : last + 1], columns=list(panel.assets))


def _with(model: Allocator, weights: Weights) -> Allocator:
    modules(model).load_state_dict(weights)
    return model


class _Deciding:
    """The allocators of one refit after another, asked for each row in turn; keeps their mean answers in `weights`."""

    def __init__(self, panel: Panel, refits: dict[int, tuple[int, Iterable[Allocator]]]) -> None:
        self.panel, self.refits = panel, refits
        self.walked: list[Walked] = []
        self.weights: list[Tensor] = []

    def __call__(self, panel: Panel, row: int, holdings: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
        """The weights on the panel's last row."""
        if row in self.refits:
            stop, models = self.refits[row]
            self.walked = [Walked(model, self.panel, self.panel.dates[row:stop]) for model in models]
        weights = torch.stack([walked(panel, row, holdings).double() for walked in self.walked]).mean(0)
        self.weights.append(weights)
        return weights
