"""How the graphs of a model are made, as plain settings that are saved with it."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64
from torch import Tensor

from qtorch.data import Panel
from qtorch.errors import ArgumentError
from qtorch.nn.graph import Graph
from qtorch.nn.specs import Spec, construct
from qtorch.portfolio.graphs.combined import combined
from qtorch.portfolio.graphs.correlations import Correlations, ewma_correlation
from qtorch.portfolio.graphs.neighbours import k_nearest
from qtorch.portfolio.graphs.relations import Relation, related, same_label

Step = Callable[..., Any] | Spec


@dataclass(frozen=True)
class GraphBuilder:
    """Makes the graphs of some rows of a panel, of what is known there, always in the way that it was told.

    A step is a function of this package, one with some arguments set by `functools.partial`, or, as it is kept and
    written in configurations, a `{class_path, init_args}`. The kinds of edges: 0 are those of correlations, then come
    those of labels, if there are any, then those of relations.

    Args:
        correlation: takes `panel` and `rows` and gives `Correlations`.
        sparsifier: takes `correlations` and gives a `Graph`.
        shrinkage: takes `correlations` and gives others, before the sparsifier; None for none.
        labels: of assets, such as sectors, or None; see `same_label`. A list of rows `{asset, label, since, until}`
            where they change.
        relations: edges by name, each a `Relation` or the list of its values; see `related`.
        allow: packages besides qtorch whose functions may be named.

    Raises:
        ValueError: a function's arguments do not fit, or it can't be imported by a name.

    Example:
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample().query("date >= '2021-01-01' and exchange == 'XNYS'"))
        >>> builder = GraphBuilder(sparsifier=partial(k_nearest, k=3), labels={"XOM": "energy", "CVX": "energy"})
        >>> graph = builder(panel, [panel.row("2022-05-31"), panel.row("2022-06-30")])
        >>> graph.neighbours.shape, builder.kinds
        (torch.Size([2, 20, 4]), 2)
        >>> GraphBuilder(**builder.plain()) == builder
        True
    """

    correlation: Step = ewma_correlation
    sparsifier: Step = field(default_factory=lambda: partial(k_nearest, k=10))
    shrinkage: Step | None = None
    labels: Mapping[str, str] | Sequence[Mapping[str, Any]] | None = None
    relations: Sequence[Relation | Sequence[Any]] = ()
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Turns functions into what is saved, and checks their arguments."""
        for name, given in (("correlation", ("panel", "rows")), ("sparsifier", ("correlations",))):
            object.__setattr__(self, name, _spec(getattr(self, name), given))
        if self.shrinkage is not None:
            object.__setattr__(self, "shrinkage", _spec(self.shrinkage, ("correlations",)))
        if isinstance(self.labels, Mapping):
            object.__setattr__(self, "labels", dict(self.labels))
        elif self.labels is not None:
            object.__setattr__(self, "labels", [dict(each) for each in self.labels])
        object.__setattr__(self, "relations", tuple(Relation(*each) for each in self.relations))
        object.__setattr__(self, "allow", tuple(self.allow))

    @property
    def kinds(self) -> int:
        """The number of kinds of edges, of which some may have no edge on a date."""
        return sum(self._counts)

    def plain(self) -> dict[str, Any]:
        """The settings as a dictionary for JSON or YAML; ``GraphBuilder(**plain)`` reads it back."""
        settings = {item.name: getattr(self, item.name) for item in fields(self)}
        return settings | {"relations": [list(each) for each in self.relations], "allow": list(self.allow)}

    def correlations(
        self, panel: Panel, rows: Sequence[int] | Int64[np.ndarray, " R"] | Int64[Tensor, " R"]
    ) -> Correlations:
        """The correlations that the graphs of some rows are made of."""
        found = construct(self.correlation, allow=self.allow, panel=panel, rows=rows)  # type: ignore[arg-type]
        return found if self.shrinkage is None else self._step(self.shrinkage, found)

    def __call__(self, panel: Panel, rows: Sequence[int] | Int64[np.ndarray, " R"] | Int64[Tensor, " R"]) -> Graph:
        """The graphs of some rows of a panel, ascending, as a batch.

        Raises:
            ValueError: as of the steps.
        """
        found = self.correlations(panel, rows)
        graphs, dates = [self._step(self.sparsifier, found)], panel.dates[found.rows]
        if self.labels is not None:
            labels = self.labels if isinstance(self.labels, Mapping) else pd.DataFrame(list(self.labels))
            graphs.append(same_label(labels, panel.assets, dates, found.mask))
        if self.relations:
            graphs.append(related(self._relations, panel.assets, dates, found.mask))
        return graphs[0] if len(graphs) == 1 else combined(*graphs, kinds=self._counts)

    @property
    def _relations(self) -> list[Relation]:
        return [Relation(*each) for each in self.relations]

    @property
    def _counts(self) -> list[int]:
        """The kinds of each of the graphs that are combined."""
        counts = [1] if self.labels is None else [1, 1]
        return counts + ([max(each.kind for each in self._relations) + 1] if self.relations else [])

    def _step(self, step: Step, found: Correlations) -> Any:
        return construct(step, allow=self.allow, correlations=found)  # type: ignore[arg-type]


def _spec(step: Step, given: Iterable[str]) -> Spec:
    """A step as it is saved."""
    if isinstance(step, Mapping):
        return {"class_path": step.get("class_path"), "init_args": dict(step.get("init_args") or {})}
    function, settings = (step.func, step.keywords) if isinstance(step, partial) else (step, {})
    name = f"{function.__module__}.{getattr(function, '__qualname__', '<unnamed>')}"
    if "<" in name or (isinstance(step, partial) and step.args):
        raise ArgumentError(f"{name} can't be saved: give a function of a module, its settings by keyword.")
    try:
        inspect.signature(function).bind(**dict.fromkeys(given), **settings)
    except TypeError as error:
        raise ArgumentError(f"{name}: {error}. It takes {inspect.signature(function)}.") from error
    return {"class_path": name, "init_args": dict(settings)}
