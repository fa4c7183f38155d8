from math import comb

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from skfolio.model_selection import CombinatorialPurgedCV
from sklearn import linear_model, model_selection

from qtorch.data import DataError
from qtorch.data.samples import Samples, as_samples
from qtorch.data.splits import (
    CombinatorialPurged,
    Role,
    WalkForward,
    plot_splits,
)


@st.composite
def markets(draw, min_rows=30):
    """Samples of a few assets with days off, listings, delistings and labels of any length, in any order.

    Also the rows of each asset's sessions, and whether some samples are left out.
    """
    rows, assets = draw(st.integers(min_rows, 60)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sessions, parts = [], []
    for a in range(assets):
        is_open = rng.random(rows) > rng.choice([0.0, 0.1, 0.4])
        week = rng.integers(0, rows)
        is_open[week : week + rng.integers(0, 9)] = False
        is_open[: rng.choice([0, 0, rows // 2])] = False
        is_open[rng.choice([rows // 2 + 5, rows]) :] = False
        own = np.flatnonzero(is_open)
        horizon = rng.integers(0, 6) + np.where(rng.random(len(own)) < 0.1, rng.integers(0, 20, len(own)), 0)
        end = np.append(own, np.full(30, rows + rng.integers(0, 2)))[np.arange(len(own)) + horizon]
        sessions.append(own)
        parts.append(np.stack([own, end, np.full(len(own), a), np.arange(len(own)) + rng.integers(0, 3)]))
    table = np.concatenate(parts, axis=1)
    thin = draw(st.booleans())
    keep = rng.permutation(table.shape[1])
    if thin:
        keep = keep[: max(1, len(keep) // 2)]
    dtype = draw(st.sampled_from([np.int16, np.int32, np.int64]))
    start, end, asset, session = table[:, keep].astype(dtype)
    return Samples(start, end, rows, asset, session), sessions, thin


def folds(splitter, X):
    """Training and test samples of each fold; no fold where the drawn data are too few for the drawn settings."""
    try:
        roles = list(splitter.roles(X))
    except ValueError:
        return []
    assert all((role[X.end >= X.rows] == Role.UNUSED).all() for role in roles)
    return [(np.flatnonzero(role == Role.TRAIN), np.flatnonzero(role == Role.TEST)) for role in roles]


def overlaps(samples, one, others):
    """Whether a sample's label span meets each of some others', both ends included."""
    return (samples.start[one] <= samples.end[others]) & (samples.end[one] >= samples.start[others])


def spans_of(samples, edges, groups):
    """The first row and the last label's end of each contiguous run of test groups."""
    runs = []
    for g in groups:
        if runs and runs[-1][-1] == g - 1:
            runs[-1].append(g)
        else:
            runs.append([g])
    spans = []
    for run in runs:
        first, last = edges[run[0]], edges[run[-1] + 1] - 1
        inside = (samples.start >= first) & (samples.start <= last) & (samples.end < samples.rows)
        spans.append((first, max([last, *samples.end[inside]])))
    return spans


@given(markets(), st.integers(1, 12), st.integers(1, 3), st.sampled_from([None, 5, 15]), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_walk_forward_trains_on_what_is_known_and_rested(market, test_size, n_splits, train_size, embargo):
    samples, sessions, thin = market
    splitter = WalkForward(test_size, n_splits, train_size, embargo=embargo)
    stop = samples.start[samples.end < samples.rows].max(initial=-1) + 1
    found = folds(splitter, samples)
    for k, (train, test) in enumerate(found):
        row = stop - (n_splits - k) * test_size
        expected_test, allowed = [], []
        for i in range(len(samples)):
            s, e, own = samples.start[i], samples.end[i], sessions[samples.asset[i]]
            if e < samples.rows and row <= s < row + test_size:
                expected_test.append(i)
            between = sum(e < r < row for r in own)
            if e < row and between >= embargo and (train_size is None or s >= row - train_size):
                allowed.append(i)
        assert test.tolist() == expected_test
        assert set(train) <= set(allowed)
        assert thin or train.tolist() == allowed
        assert not any(overlaps(samples, i, test).any() for i in train)
    assert not found or len(found) == n_splits == splitter.get_n_splits()


@given(markets(), st.integers(2, 6), st.data(), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_combinatorial_splits_are_purged_and_embargoed_around_each_block(market, n_groups, data, embargo):
    samples, sessions, thin = market
    splitter = CombinatorialPurged(n_groups, data.draw(st.integers(1, n_groups - 1)), embargo=embargo)
    known = samples.end < samples.rows
    first, stop = min(samples.start[known], default=0), max(samples.start[known], default=0) + 1
    edges = [first + (stop - first) * g // n_groups for g in range(n_groups + 1)]
    for groups, (train, test) in zip(splitter.test_groups(), folds(splitter, samples), strict=False):
        assert (samples.end[test] < samples.rows).all()
        assert not any(overlaps(samples, i, test).any() for i in train)
        allowed = []
        spans = spans_of(samples, edges, groups)
        for i in sorted(set(range(len(samples))) - set(test)):
            s, e, own = samples.start[i], samples.end[i], sessions[samples.asset[i]]
            purged = any(s <= last and e >= first for first, last in spans)
            embargoed = any(s > last and sum(last < r <= s for r in own) <= embargo for _, last in spans)
            if e < samples.rows and not purged and not embargoed:
                allowed.append(i)
        assert set(train) <= set(allowed)
        assert thin or train.tolist() == allowed


@given(markets(), st.integers(2, 6), st.data())
@settings(max_examples=50, deadline=None)
def test_paths_cover_every_labelled_sample_once(market, n_groups, data):
    samples, _, _ = market
    k = data.draw(st.integers(1, n_groups - 1))
    splitter = CombinatorialPurged(n_groups, k)
    try:
        tests = [np.flatnonzero(role == Role.TEST) for role in splitter.roles(samples)]
    except ValueError:
        return
    assert len(tests) == splitter.get_n_splits() == comb(n_groups, k)
    known = samples.end < samples.rows
    counts = np.bincount(np.concatenate(tests), minlength=len(samples))
    assert (counts == np.where(known, comb(n_groups - 1, k - 1), 0)).all()
    split = splitter.recombine(samples, [np.full(len(test), float(m)) for m, test in enumerate(tests)])
    assert split.shape == (splitter.n_paths, len(samples))
    assert (np.isfinite(split) == known).all()
    for i in np.flatnonzero(known):  # every split that tests a sample is on one of its paths
        assert sorted(split[:, i]) == [m for m, test in enumerate(tests) if i in test]
    position = splitter.recombine(samples, [test.astype(float) for test in tests])
    assert (position[:, known] == np.flatnonzero(known)).all()


@pytest.mark.parametrize(("n_groups", "k"), [(n, k) for n in range(2, 8) for k in range(1, n)])
def test_groups_and_paths_are_counted_as_by_lopez_de_prado(n_groups, k):
    splitter = CombinatorialPurged(n_groups, k)
    paths, groups = splitter.paths(), splitter.test_groups()
    assert splitter.n_paths * n_groups == comb(n_groups, k) * k
    assert paths.shape == (splitter.n_paths, n_groups)
    assert (np.bincount(groups.ravel()) == comb(n_groups - 1, k - 1)).all()
    used = sorted((int(split), g) for path in paths for g, split in enumerate(path))
    assert used == sorted((split, int(g)) for split, chosen in enumerate(groups) for g in chosen)


def test_the_book_s_five_paths_of_six_groups():
    # López de Prado (2018), figure 12.2: path p takes the p-th mark of each group's line
    assert CombinatorialPurged(6, 2).paths().tolist() == [
        [0, 0, 1, 2, 3, 4],
        [1, 5, 5, 6, 7, 8],
        [2, 6, 9, 9, 10, 11],
        [3, 7, 10, 12, 12, 13],
        [4, 8, 11, 13, 14, 14],
    ]


def test_an_asset_waits_for_its_own_sessions_after_its_exchange_was_closed():
    open_days = [np.arange(20), np.array([r for r in range(20) if not 8 <= r <= 12])]  # five days off for asset 1
    start = np.concatenate(open_days)
    asset = np.repeat([0, 1], [len(d) for d in open_days])
    session = np.concatenate([np.arange(len(d)) for d in open_days])
    samples = Samples(start, start, 20, asset, session)
    train, _ = next(WalkForward(test_size=7, n_splits=1, embargo=2).split(samples))  # tests rows 13 to 19
    assert [start[train][asset[train] == a].max() for a in (0, 1)] == [10, 5]
    rows = Samples(start, start, 20)
    train, _ = next(WalkForward(test_size=7, n_splits=1, embargo=2).split(rows))
    assert [start[train][asset[train] == a].max() for a in (0, 1)] == [10, 7]
    splits = dict(zip([(0, 1), (0, 2), (1, 2)], CombinatorialPurged(3, 2, embargo=2).split(samples), strict=True))
    (train, _) = splits[(0, 2)]  # rows 0 to 5 and 13 to 19 are test
    assert [start[train][asset[train] == a].tolist() for a in (0, 1)] == [[8, 9, 10, 11, 12], []]


def test_a_long_label_of_one_asset_purges_the_training_of_all():
    start = np.tile(np.arange(20), 2)
    asset, session = np.repeat([0, 1], 20), start.copy()
    end = start.copy()
    end[7] = 15  # asset 0, in the second of four groups
    splits = list(CombinatorialPurged(4, 1).split(Samples(start, end, 20, asset, session)))
    train, _ = splits[1]
    assert sorted(set(start[train])) == [0, 1, 2, 3, 4, 16, 17, 18, 19]
    train, _ = splits[2]  # the long label itself is no training for the group that it reaches into, nor for the next
    assert 7 not in train
    assert 27 in train


def test_the_rolling_window_keeps_its_length():
    for train, test in WalkForward(5, train_size=12).split(range(50)):
        assert train.tolist() == list(range(test[0] - 12, test[0]))
    assert WalkForward(5, train_size=12).get_n_splits(range(50)) == 7
    assert WalkForward(5).get_n_splits(range(50)) == 9


def test_frames_are_split_as_their_samples(market_frame):
    frame, samples = market_frame
    splitters = WalkForward(8, 3, embargo=2, horizon=3), CombinatorialPurged(5, 2, embargo=1, horizon=3)
    for splitter in splitters:
        expected = list(splitter.split(samples))
        flipped = frame.swaplevel()
        for X in (frame, frame["x"], flipped, type("Source", (), {"samples": lambda self: samples})()):
            found = list(splitter.split(X))
            assert all(
                np.array_equal(a, b) for f, e in zip(found, expected, strict=True) for a, b in zip(f, e, strict=True)
            )


def test_an_index_of_dates_counts_dates():
    dates = pd.bdate_range("2024-01-01", periods=10)
    X = pd.DataFrame({"x": range(20)}, index=dates.repeat(2)[::-1])
    samples = as_samples(X, horizon=2)
    assert samples.rows == 10
    assert samples.start.tolist() == np.arange(10).repeat(2)[::-1].tolist()
    assert (samples.end == samples.start + 2).all()
    plain = as_samples(X.reset_index(drop=True), horizon=2)
    assert plain.rows == 20
    assert plain.start.tolist() == list(range(20))


@pytest.mark.parametrize("names", [("date", "asset"), ("datetime", "instrument")])
def test_a_long_frame_is_split_by_its_columns(market_frame, names):
    frame, _ = market_frame
    splitter, expected = WalkForward(8, 3, embargo=2, horizon=3), as_samples(frame, horizon=3)
    long = frame.rename_axis(names).reset_index()
    layouts = (long, long.set_index(names[0]), long.set_index(names[1]), pl.from_pandas(long))
    for X in layouts:
        found = as_samples(X, horizon=3)
        for name in ("start", "end", "asset", "session"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    train, test = next(splitter.split(long))
    assert long[names[0]][train].max() < long[names[0]][test].min()
    alone = as_samples(long.drop(columns=names[1]).set_index(np.arange(len(long))), horizon=3)
    assert alone.asset is None
    np.testing.assert_array_equal(alone.start, expected.start)


@pytest.mark.parametrize(
    ("X", "found"),
    [
        (pd.Series(range(9), pd.bdate_range("2024-01-01", periods=9).strftime("%Y-%m-%d")), "its index holds str"),
        (pd.Series(range(9), pd.period_range("2024-01-01", periods=9, name="day")), r"its day holds period\[D\]"),
        (pd.Series(range(9), np.arange(9)), "its index holds int64"),
        (pd.Series(range(9)).iloc[::-1], "its index holds int64"),
        (pd.DataFrame({"date": ["2024-01-02"] * 9, "x": 1.0}), "its date holds str"),
        (pd.DataFrame({"asset": ["AAA", "BBB", "CCC"] * 3, "x": 1.0}), "its index holds int64"),
    ],
)
def test_a_frame_that_does_not_tell_its_dates_is_refused(X, found):
    with pytest.raises(DataError, match=rf"but its {found[4:]}\. Convert them with pd.to_datetime; or, .*reset_index"):
        next(WalkForward(2, 2).split(X))


@pytest.fixture
def market_frame():
    """A frame in any order, whose assets are closed on different days, and the samples made by a plain loop."""
    rng = np.random.default_rng(4)
    dates = pd.bdate_range("2024-01-01", periods=50)
    pairs = [(d, a) for a in ("AAA", "BBB", "CCC") for d in dates if rng.random() > 0.15]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    index = pd.MultiIndex.from_tuples(pairs, names=["date", "asset"])
    start = [dates.get_loc(d) for d, _ in pairs]
    names = ["AAA", "BBB", "CCC"]
    own = {a: sorted(d for d, b in pairs if b == a) for a in names}
    session = [own[a].index(d) for d, a in pairs]
    later = [own[a][i + 3 : i + 4] for i, (_, a) in zip(session, pairs, strict=True)]
    end = [dates.get_loc(day[0]) if day else 50 for day in later]
    asset = [names.index(a) for _, a in pairs]
    arrays = [np.array(x) for x in (start, end, asset, session)]
    frame = pd.DataFrame({"x": rng.standard_normal(len(pairs)), "y": rng.standard_normal(len(pairs))}, index=index)
    return frame, Samples(arrays[0], arrays[1], 50, arrays[2], arrays[3])


@pytest.mark.parametrize("gap", [0, 3])
def test_walk_forward_equals_scikit_learns_time_series_split(gap):
    X = np.zeros((53, 1))
    for size in (None, 10):
        theirs = model_selection.TimeSeriesSplit(4, test_size=7, gap=gap, max_train_size=size)
        train_size = None if size is None else size + gap
        for ours in (WalkForward(7, 4, train_size, embargo=gap), WalkForward(7, 4, train_size, horizon=gap)):
            Y = np.zeros((53 + ours.horizon, 1))  # whose last labels are not known
            for a, b in zip(ours.split(Y), theirs.split(X), strict=True):
                assert a[0].tolist() == b[0].tolist()
                assert a[1].tolist() == b[1].tolist()


@pytest.mark.parametrize("splitter", [WalkForward(8, 3, embargo=1, horizon=3), CombinatorialPurged(4, 2, horizon=3)])
def test_scikit_learn_takes_the_splitters(market_frame, splitter):
    frame, samples = market_frame
    y = frame["y"].where(samples.end < samples.rows)  # missing labels are in no fold, so that they do no harm
    model = linear_model.Ridge()
    scores = model_selection.cross_val_score(model, frame[["x"]], y, cv=splitter, error_score="raise")
    expected = []
    for train, test in splitter.split(frame):
        fit = linear_model.Ridge().fit(frame[["x"]].iloc[train], y.iloc[train])
        expected.append(fit.score(frame[["x"]].iloc[test], y.iloc[test]))
    np.testing.assert_allclose(scores, expected)
    search = model_selection.GridSearchCV(model, {"alpha": [0.1, 1.0]}, cv=splitter, refit=False)
    assert search.fit(frame[["x"]], y).n_splits_ == splitter.get_n_splits(frame)
    train, _ = next(splitter.split(frame[["x"]].to_numpy().tolist(), y, groups=None))
    assert train.dtype == np.intp


def test_combinatorial_equals_skfolios_on_one_asset():
    h, embargo = 2, 3
    theirs = CombinatorialPurgedCV(6, 2, purged_size=h, embargo_size=embargo)
    X = np.zeros((72, 2))
    samples = Samples(np.arange(72), np.arange(72) + h, 72 + h)
    ours = CombinatorialPurged(6, 2, embargo=embargo)
    for (train, test), (their_train, their_tests) in zip(ours.split(samples), theirs.split(X), strict=True):
        assert train.tolist() == their_train.tolist()
        assert test.tolist() == np.concatenate(their_tests).tolist()
    assert ours.n_paths == theirs.n_test_paths


def test_a_picture_gives_each_role_its_area(market_frame):
    frame, samples = market_frame
    ax, dates = Figure().subplots(), pd.bdate_range("2024-01-01", periods=50)
    splitter = WalkForward(8, 3, embargo=2, horizon=3)
    plot_splits(ax, splitter, frame, dates)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "purged", "embargoed", "test"]
    days = np.append(np.diff(dates) / pd.Timedelta(days=1), 1.0)
    areas = []
    for role in splitter.roles(frame):
        at = [role[(samples.start == row) & (role != Role.UNUSED)] for row in range(50)]
        for part in (Role.TRAIN, Role.PURGED, Role.EMBARGOED, Role.TEST):
            share = [(here == part).mean() if len(here) else 0.0 for here in at]
            areas.append(0.8 * (days * share).sum())
    x, y = np.stack([np.pad(bar.get_paths()[0].vertices, ((0, 1), (0, 0)), "wrap") for bar in ax.collections]).T
    drawn = np.abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum(0)) / 2
    assert min(areas) > 0
    np.testing.assert_allclose(drawn, areas, atol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="test_size must be a whole number of at least 1, not 0"):
        WalkForward(0)
    with pytest.raises(ValueError, match="embargo must be a whole number of at least 0, not -1"):
        WalkForward(5, embargo=-1)
    with pytest.raises(ValueError, match="n_test_groups=3 of n_groups=3 leave none to train on; it must be at most 2"):
        CombinatorialPurged(3, 3)
    with pytest.raises(
        ValueError, match="n_splits=5 test blocks of test_size=10 behind 20 rows .* need 70 rows, .* 60"
    ):
        next(WalkForward(10, 5, 20).split(range(60)))
    with pytest.raises(ValueError, match="n_splits=1 test blocks of test_size=40 behind 40 rows"):
        next(WalkForward(40).split(range(60)))
    with pytest.raises(ValueError, match="n_groups=6 need as many rows, .* span 4"):
        next(CombinatorialPurged().split(range(4)))
    with pytest.raises(ValueError, match="give X, or set n_splits"):
        WalkForward(5).get_n_splits()
    with pytest.raises(ValueError, match="results must be 3 arrays"):
        CombinatorialPurged(3, 1).recombine(range(9), [])
    with pytest.raises(ValueError, match="split 1 tests 3 samples, but its results have shape"):
        CombinatorialPurged(3, 1).recombine(range(9), [np.zeros(3), np.zeros(4), np.zeros(3)])


def test_bad_samples_are_refused():
    rows = np.arange(5)
    with pytest.raises(ValueError, match="end must not lie before start, but sample 2 has start 2, end 1"):
        Samples(rows, np.array([0, 1, 1, 3, 4]), 5)
    with pytest.raises(ValueError, match="start must lie in 0..3, but sample 4 has start 4"):
        Samples(rows, rows, 4)
    with pytest.raises(ValueError, match="asset must not be negative, but sample 0 has start 0, end 0, asset -1"):
        Samples(rows, rows, 5, rows - 1, rows)
    with pytest.raises(ValueError, match="give asset and session together"):
        Samples(rows, rows, 5, asset=rows)
    samples = Samples(rows, rows, 5)  # the suite checks annotated types first, so that they are broken behind its back
    for end, what in ((rows * 1.0, "float64"), (rows[:4], "int64")):
        object.__setattr__(samples, "end", end)
        with pytest.raises(ValueError, match=f"end must be 5 signed integers in one dimension, not {what}"):
            samples.__post_init__()
    splitter = WalkForward(5)
    object.__setattr__(splitter, "embargo", 0.01)
    with pytest.raises(ValueError, match="embargo must be a whole number of at least 0, not 0.01"):
        splitter.__post_init__()
    day = pd.Timestamp("2024-01-02")
    with pytest.raises(DataError, match="1 .date, asset. pairs more than once, the first of them 2024-01-02 AAA"):
        as_samples(pd.Series(0.0, pd.MultiIndex.from_tuples([(day, "AAA"), (day, "BBB"), (day, "AAA")])))
    with pytest.raises(DataError, match="must be indexed by .date, asset. with datetimes"):
        as_samples(pd.Series(0.0, pd.MultiIndex.from_tuples([(1, "AAA")], names=["date", "asset"])))
    with pytest.raises(DataError, match="no date at position 1"):
        as_samples(pd.Series(0.0, pd.DatetimeIndex([day, pd.NaT])))


def test_folds_without_samples_are_refused():
    rows = np.arange(20)
    with pytest.raises(DataError, match="fold 0 has no training sample: of its 15, 10 are purged .* and 5 lie in the"):
        list(WalkForward(5, 1, embargo=5).split(Samples(rows, rows + 10, 30)))
    hole = np.concatenate([rows[:5], rows[15:]])
    with pytest.raises(DataError, match="fold 1 has no test sample"):
        list(CombinatorialPurged(4, 1).split(Samples(hole, hole, 20)))
    with pytest.raises(DataError, match="none of the 20 samples has a label that is known by the last row, 19"):
        list(WalkForward(5).split(Samples(rows, rows + 20, 20)))
