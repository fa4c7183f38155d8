"""What a fit has shown a model, which saved models tell."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from qtorch.data.panel import Panel
from qtorch.errors import ArgumentError


@dataclass(frozen=True)
class TrainedOn:
    """The data of one fit, in plain values; a model keeps one for each of its fits, in their order.

    Attributes:
        assets: the exchange code (MIC) of each asset of the universe.
        first: the first date of the panel.
        through: the last date that training knew, for its targets too.
        validated_through: the last date that validation knew, which decided when training stopped; None without.
        as_of: the UTC instant up to which the last row known to either knew the world.
        fields: of the panel.
        scores: the best validation score by its name, in units of the windows' scales; empty without.

    Raises:
        ValueError: a value is of another type.
    """

    assets: Mapping[str, str]
    first: str
    through: str
    validated_through: str | None
    as_of: str
    fields: tuple[str, ...]
    scores: Mapping[str, float]

    @classmethod
    def of(
        cls, panel: Panel, through: int, validated_through: int | None = None, scores: Mapping[str, float] | None = None
    ) -> "TrainedOn":
        """What was known at some rows of a panel.

        Args:
            panel: the market.
            through: the last row that training knew.
            validated_through: the last row that validation knew.
            scores: of the validation; those that are no numbers are left out.
        """
        last = through if validated_through is None else validated_through
        return cls(
            dict(zip(panel.assets, panel.exchanges, strict=True)),
            f"{panel.dates[0]:%Y-%m-%d}",
            f"{panel.dates[through]:%Y-%m-%d}",
            None if validated_through is None else f"{panel.dates[validated_through]:%Y-%m-%d}",
            panel.as_of[last].isoformat(),
            tuple(panel.fields),
            {name: float(score) for name, score in (scores or {}).items() if np.isfinite(score)},
        )

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The exchange codes of the universe, sorted."""
        return tuple(sorted(set(self.assets.values())))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self) | {"fields": list(self.fields)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "TrainedOn":
        """The inverse of `to_dict`.

        Raises:
            ValueError: a value is missing or of another type.
        """
        names = [part.name for part in fields(cls)]
        fitting = (
            plain.keys() == set(names)
            and all(isinstance(plain[name], str) for name in ("first", "through", "as_of"))
            and isinstance(plain["validated_through"], str | None)
            and isinstance(plain["assets"], dict)
            and all(isinstance(code, str) for code in plain["assets"].values())
            and isinstance(plain["fields"], list)
            and all(isinstance(name, str) for name in plain["fields"])
            and isinstance(plain["scores"], dict)
            and all(type(score) is float for score in plain["scores"].values())
        )
        if not fitting:
            raise ArgumentError(f"what a model was trained on needs {', '.join(names)}, each as a fit writes it.")
        return cls(**{**plain, "fields": tuple(plain["fields"])})
