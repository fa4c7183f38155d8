"""The inputs of a model: a tuple of features, the scale of its returns, and the warm-up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtorch.data.features.dates import GapDays, NextGapDays
from qtorch.data.features.feature import Feature
from qtorch.data.features.market import MarketState
from qtorch.data.features.series import Absolute, Scaled, check_decay
from qtorch.data.features.volatility import VolatilityLevel, VolatilityRatio
from qtorch.errors import ArgumentError


def default_features(decay: float = 0.94, decays: tuple[float, ...] = (0.5, 0.8, 0.985, 0.996)) -> tuple[Feature, ...]:
    """Inputs made of returns alone, all bounded, so that no market can be far outside what training saw.

    The return in units of its EWMA volatility, its absolute value, log ratios of volatilities (one per decay), the
    volatility's level, the state of the market, calendar days to the sessions before and after.

    Args:
        decay: of the volatility in whose units returns are seen; .94 is RiskMetrics'.
        decays: of the volatilities whose ratios to that one are inputs.
    """
    return (
        Scaled(decay),
        Absolute(Scaled(decay)),
        *(VolatilityRatio(other, decay) for other in decays),
        VolatilityLevel(decay),
        MarketState(decay, decays),
        GapDays(),
        NextGapDays(),
    )


@dataclass(frozen=True)
class Features:
    """Which inputs a model sees, in the order of the last axis, and the scale in which it sees and predicts returns.

    Attributes:
        parts: the features.
        scale_decay: of the EWMA volatility that is the scale; .94 is RiskMetrics'.
        warm_up: sessions after an asset's first return that are no input and no target; None is the longest look-back
            of the parts, and 20 at least, while the scale settles. A number takes the place of the parts' look-backs:
            what has a value already is used, however few sessions it comes from.

    Raises:
        ValueError: there is no part, two columns have one name, or a setting is out of bounds.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, for the EWMA.

    Example:
        >>> from qtorch.data.features import Rank, RangeRatio, Return, Rolling, WithIndicator
        >>> mine = Features((*default_features(), Rank(Rolling(Return(), 5, "mean")), WithIndicator(RangeRatio())))
        >>> mine.names[-3:]
        ('rank_mean_5_return', 'garman_klass_ratio_0.8_0.94', 'has_garman_klass_ratio_0.8_0.94')
    """

    parts: tuple[Feature, ...] = default_features()
    scale_decay: float = 0.94
    warm_up: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        check_decay(self.scale_decay)
        if not self.parts:
            raise ArgumentError("Features needs at least one feature.")
        if self.warm_up is not None and self.warm_up < 1:
            raise ArgumentError(f"warm_up must be at least 1 session, not {self.warm_up}.")
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ArgumentError(f"more than one column is named {', '.join(sorted(twice))}. Give each feature once.")

    def __len__(self) -> int:
        """The number of inputs `F`."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the inputs."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def first_usable(self) -> int:
        """The first entry of an asset's own returns that is an input or a target's start."""
        return max(20, *(part.lookback for part in self.parts)) if self.warm_up is None else self.warm_up

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        parts = [part.to_dict() for part in self.parts]
        return {"parts": parts, "scale_decay": self.scale_decay, "warm_up": self.warm_up}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Features":
        """The inverse of `to_dict`.

        Raises:
            ValueError: a feature is not known.
        """
        return cls(tuple(Feature.from_dict(part) for part in plain["parts"]), plain["scale_decay"], plain["warm_up"])
