"""What the network says of all assets: what an earlier night has said and is still right, and the rest by slices."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
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

from qtorch.data import DataError, Panel, SessionState, WindowSource, WindowSpec, recent_source
from qtorch.data.features import CrossSection
from qtorch.data.recent import Across, Recent, gone_on
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.forecast_history import limits, sessions_back
from qtorch.nightly.slices import SLICE, Judged, evaluate_slice, in_slices, joined, judge_slice, part_of, slices_of
from qtorch.nightly.state import Answers, digests_of, last_answers, last_sessions, still_right
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
        say: receives lines that tell what was taken over from an earlier night.
    """

    config: NightlyConfig
    panel: Panel
    spec: WindowSpec
    executor: Executor | None = None
    progress: bool = False
    say: Callable[[str], None] = print

    @property
    def small(self) -> bool:
        """Whether all assets are one slice."""
        return len(self.panel.assets) <= SLICE

    @cached_property
    def source(self) -> WindowSource:
        """The windows of all assets and rows, in memory."""
        return WindowSource(self.panel, self.spec)

    @cached_property
    def recent(self) -> Recent | None:
        """The windows of the last sessions: of those since an earlier night, gone on from what that has left.

        Where that can't be they are all that a night uses, or None of a market of many slices.
        """
        last = len(self.panel.dates) - 1
        state, why = last_sessions(self.config, self.panel.dates[-1])
        if state is not None:
            found, why = gone_on(self.panel, self.spec, min(state.rows, last), state)
            if found is not None:
                self.say(f"sessions: {found.note}")
                return found
        self.say(f"sessions: computed anew ({why})")
        back = sessions_back(self.config, self.panel, joint=True)
        return recent_source(self.panel, self.spec, last - back) if self.small else None

    @property
    def possible(self) -> Bool[torch.Tensor, " N"] | None:
        """Whether each asset can be forecast tonight; None where only the forecasts will tell."""
        if self.recent is None:
            return None
        last = np.array([len(self.panel.dates) - 1])
        return self.recent.source.at(last, **limits(self.config))[1][0]

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
        self, network: Network, made_by: str, rows: Int64[np.ndarray, " D"], assets: Sequence[str], name: str
    ) -> Answers:
        """What the network says of some assets at some rows, of which an earlier night may have left the most.

        Args:
            network: the model's.
            made_by: as of `qtorch.nightly.state.maker`.
            rows: rows of the panel, one after the other, the last of them tonight.
            assets: names.
            name: of the state.

        Raises:
            DataError: no asset has a forecast at any of the rows.
        """
        part = self.panel if tuple(assets) == self.panel.assets else self.panel.select(assets)
        looks_across = any(isinstance(each, CrossSection) for each in self.spec.features.parts)
        digests = digests_of(self.panel if looks_across else part, rows)
        earlier, why = None, "the model looks across assets"
        if network.layout == "asset" and not network.joint:
            kept, why = last_answers(self.config, made_by, name, self.panel.dates[-1])
            if kept is not None:
                earlier, why = still_right(kept, part, looks_across, rows, digests)
        self.say(f"{name}: {'computed anew' if earlier is None else 'gone on from'} ({why})")
        found = self._evaluated(network, assets, rows) if earlier is None else self._later(network, earlier, part, rows)
        if not found.valid.any():
            dates = found.dates
            raise DataError(
                f"nothing to forecast from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}: no asset has "
                f"{self.config.data.min_history} returns and a price within its last "
                f"{self.config.data.stale_sessions} sessions. Give more history, or lower data.min_history."
            )
        return Answers(found, digests)

    def sessions(self) -> SessionState | None:
        """What the sessions up to tonight leave to the next night; None where a feature can't be gone on from."""
        if self.recent is not None:
            return self.recent.state
        parts = self._left
        if parts and all(part is not None for part in parts):
            return SessionState.beside([part for part in parts if part is not None], self.panel, self.spec)
        kept, _ = last_sessions(self.config, self.panel.dates[-1] + pd.Timedelta(days=1))  # of this night, run before
        usable = kept is not None and not kept.unfit(self.panel, self.spec, len(self.panel.dates))
        return kept if usable else None

    def judged(self, network: Network, found: Evaluated) -> Judged:
        """The records of all assets, from answers at the backtest's as-of dates and tonight, slice by slice."""
        tasks = ((part_of(self.panel, assets), found.columns(assets)) for assets in slices_of(found.assets))
        function = partial(judge_slice, network, self.config)
        return joined(self._each(function, tasks, len(found.assets)))

    def _later(self, network: Network, earlier: Evaluated, part: Panel, rows: Int64[np.ndarray, " D"]) -> Evaluated:
        """Answers at all rows, of which the first are there for assets that were there before."""
        new = rows[len(earlier.dates) :]
        found = earlier
        if len(new):
            found = later([earlier, self._evaluated(network, earlier.assets, new, earlier)])
        before = set(earlier.assets)
        if come := [asset for asset in part.assets if asset not in before]:
            listed = part.select(come).mask[: new[0] if len(new) else rows[-1] + 1].any(0).tolist()
            lately = [asset for asset, was in zip(come, listed, strict=True) if not was]
            if lately:  # they have no forecast yet at rows before their first price
                silent = _nothing(earlier, lately, earlier.dates)
                found = beside([found, later([silent, self._evaluated(network, lately, new, earlier)])])
            if long := [asset for asset in come if asset not in set(lately)]:
                found = beside([found, self._evaluated(network, long, rows, earlier)])
        return found if found.assets == part.assets else found.columns(part.assets)

    def _evaluated(
        self, network: Network, assets: Sequence[str], rows: Int64[np.ndarray, " D"], like: Evaluated | None = None
    ) -> Evaluated:
        """Answers of a part of the market; with others that they are `like`, none of it needs to have one."""
        dates = self.panel.dates[rows].rename(None)
        source: WindowSource | None = None
        if network.layout == "panel":
            source = self.source
        elif self.recent is not None and rows[0] >= self.recent.source.table.since:
            source = self.recent.source
        elif self.small:
            source = recent_source(self.panel, self.spec, int(rows[0])).source
        if source is not None:
            answers = evaluate(network, self.spec, self.panel, dates, **limits(self.config), source=source)
            return answers if tuple(assets) == answers.assets else answers.columns(assets)
        place = {asset: n for n, asset in enumerate(self.panel.assets)}

        def tasks() -> Iterator[tuple[Panel, pd.DatetimeIndex, Across]]:
            for some in slices_of(assets):
                yield part_of(self.panel, some), dates, self._across.columns([place[asset] for asset in some])

        function = partial(evaluate_slice, network, self.spec, self.config)
        given = self._each(function, tasks(), len(assets))
        parts = [part for part, _ in given]
        if tuple(assets) == self.panel.assets:
            self._left[:] = [state for _, state in given]
        answered = [part for part in parts if part is not None]
        if not answered and like is not None:
            return _nothing(like, assets, dates)
        if not answered:
            first = self.spec.features.first_usable
            raise DataError(
                f"none of {len(assets)} assets has more than {first} returns, the warm-up of the features, with all "
                "inputs there. Give more history, a shorter Features(warm_up=...), or put features that a source lacks "
                "into WithIndicator(...)."
            )
        groups = zip(parts, slices_of(assets), strict=True)
        return beside([_nothing(answered[0], some, dates) if part is None else part for part, some in groups])

    def _each(self, function: Callable[..., Any], tasks: Iterator[tuple[Any, ...]], assets: int) -> list[Any]:
        """What a function gives of each slice of some assets."""
        given = in_slices(function, tasks, self.executor)
        return list(tqdm(given, "slices", total=-(-assets // SLICE), disable=not self.progress))

    @cached_property
    def _across(self) -> Across:
        return Across.of(self.panel, self.spec.features)

    @cached_property
    def _left(self) -> list[SessionState | None]:
        """What the sessions of each slice leave, once they have been worked on."""
        return []


def _nothing(like: Evaluated, assets: Sequence[str], dates: pd.DatetimeIndex) -> Evaluated:
    """Answers of assets of which none has a forecast."""
    size = (len(dates), len(assets))

    def filled(values: torch.Tensor) -> torch.Tensor:
        return values[:1, :1].expand(*size, *values.shape[2:]).clone()

    return replace(
        like,
        valid=torch.zeros(size, dtype=torch.bool, device=like.valid.device),
        parameters=tuple(map(filled, like.parameters)),
        scale=filled(like.scale),
        dates=dates,
        assets=tuple(assets),
    )
