"""Walk-forward and combinatorial purged splits in the order of time, for assets whose markets close on different days.

A label is known some sessions after its sample is made. Training on a label that is known only once the test has begun
tells the model about the test; such samples are purged, each by its own label's last row, so that an asset whose
exchange was closed is held back for longer. The embargo leaves out further sessions, of the asset's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Int8, Int64

from qtorch.data.errors import DataError
from qtorch.data.samples import Samples, as_samples
from qtorch.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Role(IntEnum):
    """What a sample does in one fold; UNUSED are those without a known label and those outside the training window."""

    UNUSED = 0
    TRAIN = 1
    PURGED = 2
    EMBARGOED = 3
    TEST = 4


@dataclass(frozen=True, kw_only=True)
class _Splitter(ABC):
    """scikit-learn's `split`, from the role of every sample in every fold.

    X, wherever it is asked for, is `Samples`, an object whose `samples()` returns them, a frame or series whose index
    or columns tell dates and assets, or anything else with a length, each element of which is a session: see
    `qtorch.data.samples.as_samples`.
    """

    embargo: int = 0
    horizon: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        _at_least(0, embargo=self.embargo, horizon=self.horizon)

    @abstractmethod
    def roles(self, X: Any) -> Iterator[Int8[np.ndarray, " K"]]:
        """The `Role` of every sample, fold by fold."""

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " E"]]]:
        """Positions of the training and of the test samples, fold by fold; `y` and `groups` are ignored.

        Raises:
            ValueError: the settings ask for more rows than there are.
            DataError: a fold would have no sample to train on or none to test; or X is a frame without datetimes.
        """
        for fold, role in enumerate(self.roles(X)):
            train, test = (np.flatnonzero(role == part) for part in (Role.TRAIN, Role.TEST))
            if not len(test):
                raise DataError(f"fold {fold} has no test sample with a known label. Take longer test blocks.")
            if not len(train):
                purged, embargoed = (int((role == part).sum()) for part in (Role.PURGED, Role.EMBARGOED))
                raise DataError(
                    f"fold {fold} has no training sample: of its {purged + embargoed}, {purged} are purged because "
                    f"their labels overlap the test's and {embargoed} lie in the embargo of {self.embargo} sessions. "
                    f"Lower the embargo or the labels' horizon, leave more rows for training, or give more history."
                )
            yield train, test


@dataclass(frozen=True)
class WalkForward(_Splitter):
    """Consecutive test blocks, each after training on what was known before it; the last ends with the last sample.

    A sample trains for the block from row b on if its label is known before b with at least `embargo` sessions between:
    with rows, ``end + embargo < b``. A test block's own labels may reach beyond it.

    Without embargo and horizon these are the folds of scikit-learn's TimeSeriesSplit.

    Args:
        test_size: rows of a test block.
        n_splits: number of test blocks; None for as many as fit behind `train_size` rows, or, where that is None,
            behind `test_size` rows.
        train_size: rows before the test block to train on, which purge and embargo shorten at their end (rolling);
            None for all (expanding).
        embargo: sessions of the asset's own between a training label and the test block; rows where X has no assets.
        horizon: sessions of the asset's own after which the label of a frame's or array's row is known; other X say so
            themselves.

    Raises:
        ValueError: a size is below 1, or the embargo or the horizon below 0.

    Example:
        >>> for train, test in WalkForward(test_size=2, n_splits=2, horizon=1).split(range(8)):
        ...     print(train, test)
        [0 1] [3 4]
        [0 1 2 3] [5 6]
    """

    test_size: int
    n_splits: int | None = None
    train_size: int | None = None

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        _at_least(1, test_size=self.test_size, n_splits=self.n_splits, train_size=self.train_size)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds; needs X where `n_splits` is None."""
        if self.n_splits is not None:
            return self.n_splits
        if X is None:
            raise ArgumentError("the number of folds depends on X where n_splits is None: give X, or set n_splits.")
        return len(self._blocks(as_samples(X, self.horizon)))

    def roles(self, X: Any) -> Iterator[Int8[np.ndarray, " K"]]:
        """The `Role` of every sample, fold by fold."""
        samples = as_samples(X, self.horizon)
        for row in self._blocks(samples):
            first = 0 if self.train_size is None else row - self.train_size
            role = _roles_before(samples, first, row, self.embargo)
            inside = (samples.start >= row) & (samples.start < row + self.test_size)
            role[inside & (samples.end < samples.rows)] = Role.TEST
            yield role

    def _blocks(self, samples: Samples) -> range:
        """The first rows of the test blocks."""
        first, stop = _labelled_rows(samples)
        behind = self.train_size or (1 if self.n_splits else self.test_size)
        n_splits = self.n_splits or max(1, (stop - first - behind) // self.test_size)
        needed = n_splits * self.test_size + behind
        if needed > stop - first:
            raise ArgumentError(
                f"n_splits={n_splits} test blocks of test_size={self.test_size} behind {behind} rows of training need "
                f"{needed} rows, but the samples with known labels span {stop - first}. Lower n_splits, test_size or "
                f"train_size, or give more history."
            )
        return range(stop - n_splits * self.test_size, stop, self.test_size)


@dataclass(frozen=True)
class CombinatorialPurged(_Splitter):
    """Combinatorial purged cross-validation: every choice of k test groups among N groups of consecutive rows.

    ``C(N, k)`` splits test each group ``phi = C(N, k) k / N = C(N-1, k-1)`` times, and so make phi backtest paths, each
    over the whole history. For each test group, with first row f and last label end l, training samples whose labels
    overlap it, ``start <= l and end >= f``, are purged, and those of an asset's first `embargo` sessions after l are
    embargoed. Training reaches behind the test: these are paths for the distribution of a backtest's result, not a
    history that could have been traded.

    Args:
        n_groups: `N`, groups of as equal numbers of rows as can be.
        n_test_groups: `k`, groups that a split tests; at most half of them keeps training longer than test.
        embargo: sessions of the asset's own after a test group's last label; rows where X has no assets.
        horizon: sessions of the asset's own after which the label of a frame's or array's row is known; other X say so
            themselves.

    Raises:
        ValueError: n_test_groups outside 1..n_groups - 1, or the embargo or the horizon below 0.

    References:
        López de Prado (2018), Advances in Financial Machine Learning, ch. 7.4 (purge and embargo) and ch. 12.4.

    Example:
        >>> CombinatorialPurged(6, 2).paths()[:2]  # the splits that test groups 1 to 6, on the book's paths 1 and 2
        array([[0, 0, 1, 2, 3, 4],
               [1, 5, 5, 6, 7, 8]])
    """

    n_groups: int = 6
    n_test_groups: int = 2

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        _at_least(2, n_groups=self.n_groups)
        _at_least(1, n_test_groups=self.n_test_groups)
        if self.n_test_groups >= self.n_groups:
            raise ArgumentError(
                f"n_test_groups={self.n_test_groups} of n_groups={self.n_groups} leave none to train on; it must be at "
                f"most {self.n_groups - 1}. Lower n_test_groups or raise n_groups."
            )

    @property
    def n_paths(self) -> int:
        """The number of backtest paths ``phi = C(N-1, k-1)``."""
        return comb(self.n_groups - 1, self.n_test_groups - 1)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds ``C(N, k)``."""
        return comb(self.n_groups, self.n_test_groups)

    def test_groups(self) -> Int64[np.ndarray, "M k"]:
        """The groups that each of the `M` splits tests, in the order of `split`."""
        return np.array(list(combinations(range(self.n_groups), self.n_test_groups)), dtype=np.int64)

    def paths(self) -> Int64[np.ndarray, "P N"]:
        """The split that each of the `P` paths takes each group's test results from; each result is on one path."""
        tested = (self.test_groups()[:, :, None] == np.arange(self.n_groups)).any(1)
        return np.stack([np.flatnonzero(column) for column in tested.T], axis=1)

    def recombine(self, X: Any, results: Sequence[np.ndarray]) -> Float[np.ndarray, "P K"]:
        """Puts the results of the test samples together to backtest paths.

        Args:
            X: what was split.
            results: a number for each test sample, one array a split, in the order of `split`.

        Returns:
            The results on each path, NaN for samples whose label is never known.

        Raises:
            ValueError: not one array per split or not one number per test sample.
        """
        group, test_groups = self._groups(as_samples(X, self.horizon))[0], self.test_groups()
        if len(results) != len(test_groups):
            raise ArgumentError(f"results must be {len(test_groups)} arrays, one for each split, not {len(results)}.")
        out = np.full((self.n_paths, len(group)), np.nan)
        paths = self.paths()
        for split, chosen in enumerate(test_groups):
            test = np.flatnonzero(np.isin(group, chosen))
            if np.shape(results[split]) != test.shape:
                raise ArgumentError(
                    f"split {split} tests {len(test)} samples, but its results have shape {np.shape(results[split])}."
                )
            path = (paths == split).argmax(0)  # of each group; on one path each
            out[path[group[test]], test] = results[split]
        return out

    def roles(self, X: Any) -> Iterator[Int8[np.ndarray, " K"]]:
        """The `Role` of every sample, fold by fold."""
        samples = as_samples(X, self.horizon)
        start, end = samples.start, samples.end
        group, edges = self._groups(samples)
        # max() over nothing: a group of which no sample is left still spans its own rows
        last = np.array([np.max(end, where=group == g, initial=edges[g + 1] - 1) for g in range(self.n_groups)])
        free = _free_from(samples, last, self.embargo) if self.embargo else np.empty(0)
        session, asset = (start, 0) if samples.session is None else (samples.session, samples.asset)
        for chosen in self.test_groups():
            # Both tables go by start row. The first row of the earliest test group that ends at or after it: a label
            # from there overlaps the test if it reaches that row. And the test group that ended last before it, whose
            # embargo outlasts those of the others; -1, which is none, takes the tables' last entry.
            reach, behind = np.full(samples.rows, samples.rows), np.full(samples.rows, -1)
            for g in chosen[::-1]:
                reach[: last[g] + 1] = edges[g]
            for g in chosen[np.argsort(last[chosen])]:
                behind[last[g] + 1 :] = g
            is_test = np.isin(np.append(np.arange(self.n_groups), -1), chosen)
            role = np.full(len(samples), Role.TRAIN, dtype=np.int8)
            if self.embargo:
                role[session < free[behind[start], asset]] = Role.EMBARGOED
            role[end >= reach[start]] = Role.PURGED
            role[is_test[group]] = Role.TEST
            role[group < 0] = Role.UNUSED
            yield role

    def _groups(self, samples: Samples) -> tuple[Int[np.ndarray, " K"], Int[np.ndarray, " E"]]:
        """The group of each sample, and the groups' first rows with the row after the last."""
        first, stop = _labelled_rows(samples)
        if stop - first < self.n_groups:
            raise ArgumentError(
                f"n_groups={self.n_groups} need as many rows, but the samples with known labels span {stop - first}. "
                f"Lower n_groups or give more history."
            )
        edges = first + (stop - first) * np.arange(self.n_groups + 1) // self.n_groups
        table = np.searchsorted(edges, np.arange(samples.rows), side="right").astype(np.int16) - np.int16(1)
        group = table[samples.start]
        group[samples.end >= samples.rows] = -1
        return group, edges


def plot_splits(ax: "Axes", splitter: _Splitter, samples: Any, dates: pd.DatetimeIndex) -> None:
    """A bar for each fold, at each date coloured in proportion to the roles that the samples have there.

    Args:
        ax: axes to draw on.
        splitter: `WalkForward` or `CombinatorialPurged`.
        samples: the X of its `split`.
        dates: of the rows, `[T]`.
    """
    samples = as_samples(samples, splitter.horizon)
    size = samples.rows * len(Role)
    x = dates.append(dates[-1:] + pd.Timedelta(days=1)).to_numpy()
    fold = -1
    for fold, role in enumerate(splitter.roles(samples)):
        counts = np.bincount(samples.start * np.int64(len(Role)) + role, minlength=size).reshape(-1, len(Role))
        counts[:, Role.UNUSED] = 0  # they are left blank
        share = counts.cumsum(1) / np.maximum(counts.sum(1, keepdims=True), 1)
        edges = fold + 0.4 - 0.8 * np.concatenate([share, share[-1:]])
        for part, color in _COLORS.items():
            label = None if fold else part.name.lower()
            ax.fill_between(x, edges[:, part - 1], edges[:, part], step="post", color=color, linewidth=0, label=label)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(fold + 0.6, -0.6)
    ax.set_yticks(range(fold + 1))
    ax.set_ylabel("fold")
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_COLORS), frameon=False, borderpad=0, borderaxespad=0.2
    )
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)


_COLORS = {Role.TRAIN: "#b5cfe8", Role.PURGED: "#e08a00", Role.EMBARGOED: "#c81e3a", Role.TEST: "#1d2733"}


def _at_least(bound: int, **settings: Any) -> None:
    for name, value in settings.items():
        if value is not None and (not isinstance(value, int | np.integer) or value < bound):
            raise ArgumentError(f"{name} must be a whole number of at least {bound}, not {value!r}.")


def _labelled_rows(samples: Samples) -> tuple[int, int]:
    """The first row with a sample whose label is known, and the row after the last."""
    known = samples.end < samples.rows
    first = int(np.min(samples.start, where=known, initial=samples.rows))
    stop = int(np.max(samples.start, where=known, initial=-1)) + 1
    if first >= stop:
        raise DataError(
            f"none of the {len(samples)} samples has a label that is known by the last row, {samples.rows - 1}. "
            f"Give more history or labels of a shorter horizon."
        )
    return first, stop


def _roles_before(samples: Samples, first: int, row: int, embargo: int) -> Int8[np.ndarray, " K"]:
    """Roles of the samples from row `first` on as training for a test whose first row is `row`."""
    start, end = samples.start, samples.end
    role = np.full(len(samples), Role.UNUSED, dtype=np.int8)
    chosen = (start >= first) & (start < row) & (end < samples.rows)
    role[chosen] = Role.PURGED
    chosen &= end < row
    if embargo:
        role[chosen] = Role.EMBARGOED
        chosen &= end < _rested_by(samples, row, embargo)
    role[chosen] = Role.TRAIN
    return role


def _rested_by(samples: Samples, row: int, embargo: int) -> int | Int64[np.ndarray, " K"]:
    """The row before which each label must be known to leave `embargo` sessions between it and `row`."""
    if samples.asset is None or samples.session is None:
        return row - embargo
    past, assets = samples.start < row, int(samples.asset.max()) + 1
    start, asset, session = samples.start[past], samples.asset[past], samples.session[past]
    early = _per_asset(np.maximum, session, asset, assets)[asset] - session >= embargo
    return (_per_asset(np.maximum, start[early], asset[early], assets) + 1)[samples.asset]


def _free_from(samples: Samples, last: Int[np.ndarray, " N"], embargo: int) -> Int64[np.ndarray, "N+1 A"]:
    """The first own session of each asset that is free of the embargo after each row of `last`; then one for no row."""
    if samples.asset is None or samples.session is None:
        free = (last + 1)[:, None]
    else:
        later, assets = [samples.start > row for row in last], int(samples.asset.max()) + 1
        free = np.stack([_per_asset(np.minimum, samples.session[t], samples.asset[t], assets) for t in later])
    return np.pad(free + embargo, ((0, 1), (0, 0)), constant_values=np.iinfo(np.int64).min)


def _per_asset(
    ufunc: np.ufunc, values: Int[np.ndarray, " K"], asset: Int[np.ndarray, " K"], assets: int
) -> Int64[np.ndarray, " A"]:
    """The least or greatest of each asset's values; the farthest number on the other side where it has none."""
    limits = np.iinfo(values.dtype)
    out = np.full(assets, limits.max if ufunc is np.minimum else limits.min, dtype=values.dtype)
    ufunc.at(out, asset, values)  # five times faster where out has the dtype of the values
    return out.astype(np.int64)
