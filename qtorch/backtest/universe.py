"""Which assets a plain allocator may choose on the last row of a panel, and how it works around closed ones."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from qtorch.data import DataError, Panel, State
from qtorch.data.standing import standing
from qtorch.portfolio import Constraints, project


def listed_assets(panel: Panel, history: int = 0, silence: int = 5) -> Bool[Tensor, " N"]:
    """Assets with a price at least `history` rows before the last row, and one in their last few sessions.

    Args:
        panel: as it stood at a decision.
        history: rows.
        silence: sessions of its exchange without a price after which an asset is left out.

    Raises:
        DataError: there is none.
    """
    last = len(panel.dates) - 1
    began = panel.mask[: max(last + 1 - history, 0)].any(0)
    silent = standing(panel, np.array([last]))[1][0]
    there = began & (silent <= silence)
    if panel.delisted is not None:
        there = there & (panel.state[-1] != State.UNLISTED)
    if not there.any():
        raise DataError(
            f"{panel.dates[-1]:%Y-%m-%d}: no asset has a price {history} rows before and one in its last {silence} "
            "sessions: begin later, or ask for less history."
        )
    return there


def around_closed(
    weights: Float64[Tensor, " N"],
    universe: Bool[Tensor, " N"],
    panel: Panel,
    holdings: Float64[Tensor, " N"],
    constraints: Constraints | None = None,
    *,
    groups: Mapping[str, Int[Tensor, " N"]] | None = None,
    untouched: Bool[Tensor, " N"] | None = None,
) -> Float64[Tensor, " N"]:
    """The nearest weights that keep to the constraints while assets without a price today stay at their holdings.

    Where all of the universe is open and the weights keep to the constraints, these are the weights themselves.

    Args:
        weights: wished for.
        universe: what may be held; what is held of others is sold where it can be.
        panel: as it stood at the decision.
        holdings: today's weights.
        constraints: long only and fully invested by default. Costs are borrowed, so that what can't be sold may exceed
            the budget: then nothing else is held.
        groups: labels of each asset by the name of a partition, for the constraints' caps.
        untouched: assets that stay at their holdings though they are open; none by default.

    Raises:
        ValueError: no weights keep to the constraints.
    """
    tradable = panel.mask[-1] if untouched is None else panel.mask[-1] & ~untouched
    stuck = ~tradable & (holdings != 0)
    return project(
        weights, constraints or Constraints(), universe | stuck, holdings=holdings, tradable=tradable, groups=groups
    )
