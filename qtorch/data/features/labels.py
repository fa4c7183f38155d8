"""What does not change with time: an asset's exchange, its sector, its country."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from qtorch.data.features.feature import Feature, OwnSessions
from qtorch.data.panel import Panel
from qtorch.errors import ArgumentError


@dataclass(frozen=True)
class Label(Feature):
    """A static covariate, one column for each of its values: 1 in the asset's own, 0 in the others.

    The first linear layer of a network makes an embedding of it, a row of weights for each value. An asset without a
    value, or with one that is none of `values`, has 0 in all columns, so that a model forecasts assets it has never
    seen; train it on some assets without a label, and such an asset is nothing new to it.

    Attributes:
        name: of the covariate.
        values: that have a column; the model is made for them.
        of: pairs of an asset and its value; None takes the exchange that the panel gives for each asset.

    Raises:
        ValueError: no values, or one twice, or an asset twice.

    Example:
        >>> sector = Label.of_assets("sector", {"AAPL": "technology", "XOM": "energy"})
        >>> sector.names
        ('sector=energy', 'sector=technology')
    """

    name: str = "exchange"
    values: tuple[str, ...] = ("XNYS",)
    of: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values or len(set(self.values)) < len(self.values):
            raise ArgumentError(f"Label {self.name!r} needs values, each once, not {self.values}.")
        if self.of is not None:
            pairs = tuple((str(asset), str(value)) for asset, value in self.of)
            if len(dict(pairs)) < len(pairs):
                raise ArgumentError(f"Label {self.name!r} names an asset twice. Give each asset one value.")
            object.__setattr__(self, "of", pairs)

    @classmethod
    def of_assets(cls, name: str, of: Mapping[str, str], values: Iterable[str] | None = None) -> "Label":
        """A label from a mapping of assets to values; by default every value in it has a column.

        Args:
            name: of the covariate, such as ``"sector"``.
            of: value by asset; assets may be missing, or not be in the panel.
            values: that have a column.
        """
        columns = sorted(set(of.values())) if values is None else values
        return cls(name, tuple(columns), tuple(sorted(of.items())))

    @classmethod
    def exchange(cls, panel: Panel) -> "Label":
        """The exchange, with a column for each of a panel's."""
        return cls("exchange", tuple(sorted(panel.exchange_codes)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={value}" for value in self.values)

    @property
    def reach(self) -> int:
        """Its own entry alone."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        panel = sessions.panel
        known = dict(zip(panel.assets, panel.exchanges, strict=True)) if self.of is None else dict(self.of)
        row = np.array([[float(known.get(asset) == value) for value in self.values] for asset in panel.assets])
        return np.where(sessions.inside[:, :, None], row[:, None, :], np.nan)
