"""What a portfolio must keep to, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from qtorch.distributions.checks import require

Limit = float | Sequence[float] | None


@dataclass(frozen=True)
class GroupCap:
    """Limits of the net weight in each group of a partition, such as sectors.

    Attributes:
        upper: of every group, or one for each label in order; None for none.
        lower: likewise, so that ``GroupCap(0.05, -0.05)`` keeps each group near neutral.
        labels: how many labels the partition has. Without it they are counted, which compiled code cannot do.
    """

    upper: Limit = None
    lower: Limit = None
    labels: int | None = None

    def __post_init__(self) -> None:
        """Checks that the lengths agree.

        Raises:
            ValueError: they don't, or there is no limit.
        """
        require(self.upper is not None or self.lower is not None, "GroupCap", "()", "give upper, lower or both")
        for name, limit in (("upper", self.upper), ("lower", self.lower)):
            if isinstance(limit, Sequence):
                object.__setattr__(self, name, tuple(limit))
        counts = {len(limit) for limit in (self.upper, self.lower) if isinstance(limit, Sequence)}
        counts |= set() if self.labels is None else {self.labels}
        require(len(counts) <= 1, "GroupCap", sorted(counts), "upper, lower and labels must be of one length")
        for count in counts:
            object.__setattr__(self, "labels", count)


@dataclass(frozen=True)
class Constraints:
    """Limits of the weights w of a portfolio, whose equity is 1; the rest is cash.

    Attributes:
        budget: sum w; None leaves it free.
        lower: of each weight; None for none.
        upper: of each weight; None for none.
        gross: most of sum |w|; None for none.
        turnover: most of sum |w - holdings|: two-way, so that selling 10 % to buy others is 0.2 (one-way turnover is
            half of it); None for none. What is held of assets that left the universe is sold, and counts.
        caps: by the name of a partition of the assets, the most net weight in each of its groups, or a `GroupCap`.

    Example:
        >>> Constraints(upper=0.1, caps={"sector": 0.3})
        Constraints(budget=1.0, lower=0.0, upper=0.1, gross=None, turnover=None, caps={'sector': GroupCap(upper=0.3...
    """

    budget: float | None = 1.0
    lower: float | None = 0.0
    upper: float | None = 1.0
    gross: float | None = None
    turnover: float | None = None
    caps: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what can be without a universe, and reads the caps.

        Raises:
            ValueError: a limit is negative or NaN, or bounds cross.
        """
        low, high = -inf if self.lower is None else self.lower, inf if self.upper is None else self.upper
        require(low <= high, "lower", low, f"at most upper={high} is needed")
        if self.budget is not None:
            require(abs(self.budget) < inf, "budget", self.budget, "a finite number or None is needed")
        for name in ("gross", "turnover"):
            limit = getattr(self, name)
            require(limit is None or limit >= 0, name, limit, "a number of at least 0 or None is needed")
        if self.budget is not None and self.gross is not None:
            require(
                self.gross >= abs(self.budget), "gross", self.gross, f"it can't be below the budget of {self.budget}"
            )
        caps = {}
        for name, cap in self.caps.items():
            if isinstance(cap, Mapping):
                cap = GroupCap(**cap)
            caps[name] = cap if isinstance(cap, GroupCap) else GroupCap(cap)
        object.__setattr__(self, "caps", caps)

    def plain(self) -> dict[str, Any]:
        """The values as a dictionary for JSON or YAML; ``Constraints(**plain)`` reads it back."""
        return asdict(self)
