"""What the network says of all assets: what an earlier night has said and is still right, and the rest by slices."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int64
from tqdm.std import tqdm

from qtorch.data import DataError, Panel, WindowSource, WindowSpec
from qtorch.data.features import CrossSection
from qtorch.data.table import market_values
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import limits
from qtorch.nightly.slices import SLICE, Judged, evaluate_slice, in_slices, joined, judge_slice, part_of, slices_of
from qtorch.nightly.state import Answers, digests_of, last_answers, still_right
from qtorch.training.evaluated import Evaluated, beside, later
from qtorch.training.forecasting import evaluate
from qtorch.training.network import Network

_IN_MEMORY = 1 << 30  # bytes of a market's inputs, beyond which the training's windows are on disk


@dataclass(frozen=True, eq=False)
class Universe:
    """A night's market and its windows: whole, or where there are many assets a slice at a time.

    Attributes:
        config: the job.
        panel: up to tonight.
        spec: of the windows.
        executor: runs slices elsewhere; None here, one after the other.
        progress: show a bar of the slices.
    """

    config: NightlyConfig
    panel: Panel
    spec: WindowSpec
    executor: Executor | None = None
    progress: bool = False

    @property
    def small(self) -> bool:
        """Whether all assets are one slice."""
        return len(self.panel.assets) <= SLICE

    @cached_property
    def source(self) -> WindowSource:
        """The windows of all assets, in memory."""
        return WindowSource(self.panel, self.spec)

    @property
    def possible(self) -> Bool[torch.Tensor, " N"]:
        """Whether each asset can be forecast tonight."""
        return self.source.at(
            np.array([len(self.panel.dates) - 1]), self.config.data.min_history, self.config.data.stale_sessions
        )[1][0]

    @contextmanager
    def windows(self) -> Iterator[WindowSource]:
        """The same for a training, on disk where they are too many."""
        size = 4 * len(self.spec.features) * int(self.panel.mask.sum())
        if self.small or size <= _IN_MEMORY:
            yield self.source if self.small else WindowSource(self.panel, self.spec)
            return
        output = Path(self.config.output)
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".windows-", dir=output) as folder:
            yield WindowSource(self.panel, self.spec, store=Path(folder) / "sessions")

    def answers(
        self,
        network: Network,
        made_by: str,
        rows: Int64[np.ndarray, " D"],
        assets: Sequence[str],
        name: str,
        say: Callable[[str], None],
    ) -> Answers:
        """What the network says of some assets at some rows, of which an earlier night may have left the most.

        Args:
            network: the model's.
            made_by: as of `qtorch.nightly.state.maker`.
            rows: rows of the panel, one after the other, the last of them tonight.
            assets: names.
            name: of the state.
            say: receives a line that tells what was taken over.

        Raises:
            DataError: no asset has a forecast at any of the rows.
        """
        part = self.panel if tuple(assets) == self.panel.assets else self.panel.select(assets)
        dates = self.panel.dates[rows].rename(None)
        earlier, why = None, "the model looks across assets"
        if network.layout == "asset" and not network.joint:
            kept, why = last_answers(self.config, made_by, name, dates[-1])
            if kept is not None:
                earlier, why = still_right(kept, part, self.panel, self.spec, rows)
        say(f"{name}: {'computed anew' if earlier is None else 'gone on from'} ({why})")
        if earlier is None:
            found = self._evaluated(network, assets, dates)
        else:
            new = dates[len(earlier.dates) :]
            found = later([earlier, self._evaluated(network, earlier.assets, new)]) if len(new) else earlier
            come = [asset for asset in assets if asset not in set(earlier.assets)]
            if come:
                found = beside([found, self._evaluated(network, come, dates)])
            if found.assets != tuple(assets):
                found = found.columns(assets)
        if not found.valid.any():
            raise DataError(
                f"nothing to forecast from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}: no asset has "
                f"{self.config.data.min_history} returns and a price within its last "
                f"{self.config.data.stale_sessions} sessions. Give more history, or lower data.min_history."
            )
        looks_across = any(isinstance(each, CrossSection) for each in self.spec.features.parts)
        return Answers(found, digests_of(self.panel if looks_across else part, rows))

    def judged(self, network: Network, found: Evaluated) -> Judged:
        """The records of all assets, from answers at the backtest's as-of dates and tonight, slice by slice."""
        tasks = ((part_of(self.panel, assets), found.columns(assets)) for assets in slices_of(found.assets))
        function = partial(judge_slice, network, self.config)
        return joined(self._each(function, tasks, len(found.assets)))

    def _evaluated(self, network: Network, assets: Sequence[str], dates: pd.DatetimeIndex) -> Evaluated:
        if self.small or network.layout == "panel":
            options = limits(self.config)
            found = evaluate(network, self.spec, self.panel, dates, **options, source=self.source)
            return found if tuple(assets) == found.assets else found.columns(assets)
        place = {asset: n for n, asset in enumerate(self.panel.assets)}

        def tasks() -> Iterator[tuple[Panel, pd.DatetimeIndex, Mapping[CrossSection, np.ndarray]]]:
            for some in slices_of(assets):
                at = [place[asset] for asset in some]
                across = {
                    part: values if values.shape[1] == 1 else values[:, at] for part, values in self._across.items()
                }
                yield part_of(self.panel, some), dates, across

        function = partial(evaluate_slice, network, self.spec, self.config)
        parts = self._each(function, tasks(), len(assets))
        answered = [part for part in parts if part is not None]
        if not answered:
            first = self.spec.features.first_usable
            raise DataError(
                f"none of {len(assets)} assets has more than {first} returns, the warm-up of the features, with all "
                "inputs there. Give more history, a shorter Features(warm_up=...), or put features that a source lacks "
                "into WithIndicator(...)."
            )
        groups = zip(parts, slices_of(assets), strict=True)
        return beside([_nothing(answered[0], some) if part is None else part for part, some in groups])

    def _each(self, function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]], assets: int) -> list[Any]:
        """What a function gives of each slice of some assets."""
        given = in_slices(function, tasks, self.executor)
        return list(tqdm(given, "slices", total=-(-assets // SLICE), disable=not self.progress))

    @cached_property
    def _across(self) -> dict[CrossSection, np.ndarray]:
        """The features across all assets, in the inputs' precision."""
        values = market_values(self.panel, self.spec.features)
        return {part: grid.astype(np.float32) for part, grid in values.items()}


def _nothing(like: Evaluated, assets: Sequence[str]) -> Evaluated:
    """Answers of assets of which none has a forecast."""
    size = (len(like.dates), len(assets))

    def filled(values: torch.Tensor) -> torch.Tensor:
        return values[:1, :1].expand(*size, *values.shape[2:]).clone()

    return replace(
        like,
        valid=torch.zeros(size, dtype=torch.bool, device=like.valid.device),
        parameters=tuple(map(filled, like.parameters)),
        scale=filled(like.scale),
        assets=tuple(assets),
    )
