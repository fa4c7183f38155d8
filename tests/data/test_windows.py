import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import (
    DataError,
    DataModule,
    Features,
    Panel,
    WalkForward,
    WindowDataset,
    WindowSource,
    WindowSpec,
    datamodule,
)
from qtorch.data.datamodule import chronological_split
from qtorch.data.table import session_table
from qtorch.data.windows import outcomes
from qtorch.nn import windows_of
from tests.conftest import make_prices

SPEC = WindowSpec(context=8, horizons=(1, 3), features=Features(warm_up=5))


@pytest.fixture(scope="module")
def frame():
    frame = make_prices({"AAA": "XNYS", "TTT": "XTKS", "EEE": "XECB"}, "2018-01-04", "2019-12-30")
    late = frame[~((frame["asset"] == "TTT") & (frame["date"] < "2019-01-01"))]
    holes = late.sample(frac=0.04, random_state=3).index
    return late.drop(holes).reset_index(drop=True)


@pytest.fixture(scope="module")
def source(frame):
    return WindowSource(Panel.from_frame(frame), SPEC)


def own(frame: pd.DataFrame, asset: str) -> pd.Series:
    return frame[frame["asset"] == asset].set_index("date")["close"].pct_change().dropna()


def test_scale_and_returns_equal_pandas(frame, source):
    table, panel = source.table, source.panel
    for n, asset in enumerate(panel.assets):
        returns = own(frame, asset)
        assert int(table.length[n]) == len(returns)
        assert list(panel.dates[table.row[table.of(n)].numpy()]) == list(returns.index)
        close, first = table.close, table.of(n).start
        np.testing.assert_allclose(
            close[first + 1 : table.of(n).stop] / close[first : table.of(n).stop - 1] - 1,
            returns[1:],
            rtol=1e-12,
            atol=1e-15,
        )
        expected = np.sqrt((returns**2).ewm(alpha=0.06, adjust=True).mean())
        np.testing.assert_allclose(table.scale[table.of(n)][5:], expected[5:], rtol=1e-6)


def test_market_inputs_come_from_the_assets_observed(frame, source):
    panel, table = source.panel, source.table
    z = pd.DataFrame({a: own(frame, a) / np.sqrt((own(frame, a) ** 2).ewm(alpha=0.06).mean()) for a in panel.assets})
    mean = z.mean(axis=1)
    at = SPEC.features.names.index("market_mean")
    for n in range(len(panel.assets)):
        dates, inputs = panel.dates[table.row[table.of(n)].numpy()][5:], table.inputs[table.of(n)][5:]
        np.testing.assert_allclose(inputs[:, at], mean[dates], atol=1e-6)
        np.testing.assert_allclose(inputs[:, 0], z.iloc[:, n][dates], atol=1e-6)


def test_gaps_count_calendar_days(frame, source):
    panel, table = source.panel, source.table
    n = panel.assets.index("AAA")
    dates, inputs = panel.dates[table.row[table.of(n)].numpy()], table.inputs[table.of(n)]
    closes = pd.DatetimeIndex(frame[frame["asset"] == "AAA"]["date"])
    gap = np.log(np.diff(closes.to_numpy()).astype("m8[D]").astype(int))
    np.testing.assert_allclose(inputs[5:, -2], gap[5:], atol=1e-6)
    friday = dates.get_loc(pd.Timestamp("2019-08-30"))  # Labor Day follows: four days to the next session
    assert inputs[friday, -1].item() == pytest.approx(np.log(4))


def test_window_content_equals_a_plain_loop(frame, source):
    panel, C = source.panel, SPEC.context
    entries = source.entries()
    window = source.gather(entries)
    every = source.gather(entries, every_position=True)
    assert len(window) == len(entries) > 900
    table = source.table
    for b in range(0, len(entries), 37):
        n, t = int(window.asset_index[b]), int(window.row_index[b])
        i = int((table.row[table.of(n)] == t).nonzero())
        closes = frame[frame["asset"] == panel.assets[n]]["close"].to_numpy()
        for c in range(C):
            j = i - (C - 1 - c)
            usable = j >= SPEC.features.warm_up
            assert bool(window.mask[b, c]) == usable
            expected = table.inputs[table.of(n)][j] if usable else torch.zeros(len(SPEC.features))
            assert torch.equal(window.inputs[b, c], expected)
            for h, horizon in enumerate(SPEC.horizons):
                known = usable and j + 1 + horizon < len(closes)
                value = closes[j + 1 + horizon] / closes[j + 1] - 1 if known else 0.0
                assert bool(every.target_mask[b, c, h]) == known
                assert every.target[b, c, h].item() == pytest.approx(value, abs=1e-7)
        assert torch.equal(every.target[b, -1], window.target[b])
        assert every.scale[b, -1] == window.scale[b]


def test_short_starts_are_padded_on_the_left(source):
    first = source.gather(source.entries()[:1])
    assert first.mask[0].tolist() == [False] * 7 + [True]
    assert (first.inputs[0, :7] == 0).all()


def test_changing_the_future_changes_no_input_or_scale_before(frame):
    cut = pd.Timestamp("2019-06-14")
    changed = frame.copy()
    later = changed["date"] > cut
    rng = np.random.default_rng(5)
    changed.loc[later, "close"] *= np.exp(0.2 * rng.standard_normal(later.sum()))
    before, after = (Panel.from_frame(f) for f in (frame, changed))
    row = before.row(cut)
    a, b = (session_table(p, SPEC.features, SPEC.horizons, pad=8) for p in (before, after))
    past = (a.row >= 0) & (a.row <= row)
    assert past.sum() > 700
    assert torch.equal(a.inputs[past], b.inputs[past])
    assert torch.equal(a.scale[past], b.scale[past])
    assert not torch.equal(a.scale, b.scale)


def test_permuting_assets_permutes_the_windows(frame):
    panel = Panel.from_frame(frame)
    order = [2, 0, 1]
    turned = panel.select([panel.assets[i] for i in order])
    a, b = (
        session_table(panel, SPEC.features, SPEC.horizons, pad=8),
        session_table(turned, SPEC.features, SPEC.horizons, pad=8),
    )
    for turned_column, column in enumerate(order):
        torch.testing.assert_close(a.inputs[a.of(column)], b.inputs[b.of(turned_column)], rtol=0, atol=1e-6)
        assert torch.equal(a.row[a.of(column)], b.row[b.of(turned_column)])


def test_unobserved_values_influence_nothing(frame):
    panel = Panel.from_frame(frame)
    values = panel.values.clone()
    values[~panel.mask] = 50.0
    a, b = (
        session_table(p, SPEC.features, SPEC.horizons, pad=8)
        for p in (panel, dataclasses.replace(panel, values=values))
    )
    for name in ("record", "usable", "inputs"):  # targets and scales lie in the record
        assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("embargo", [0, 1, 5])
def test_no_label_of_any_horizon_reaches_the_embargo(source, embargo):
    panel = source.panel
    train, validation, _ = chronological_split(source, "2019-03-01", "2019-09-02", embargo)
    observed = panel.mask.numpy()
    for span, first in ((train, panel.row("2019-03-01")), (validation, panel.row("2019-09-02"))):
        for every in (False, True):
            window = WindowDataset(source, span, every)[span.entries]
            asset, last = window.asset_index.numpy(), np.full(len(window), -1)
            C = SPEC.context
            for h, horizon in enumerate(SPEC.horizons):
                for c in range(C) if every else (C - 1,):
                    known = (window.target_mask[:, c, h] if every else window.target_mask[:, h]).numpy()
                    position = span.entries.long() + c + horizon
                    row = source.table.row[position].numpy()
                    last = np.where(known, np.maximum(last, row), last)
            for b in range(0, len(window), 11):
                between = observed[last[b] + 1 : first, asset[b]].sum()
                assert between >= embargo
            assert (last >= 0).all()
    with pytest.raises(ValueError, match="embargo must be at least 0 sessions, not -3"):
        chronological_split(source, "2019-03-01", None, -3)
    with pytest.raises(DataError, match="a date without a time zone"):
        chronological_split(source, pd.Timestamp("2019-03-01", tz="UTC"), None)


def test_windows_of_another_panel_or_spec_are_refused(source):
    panel, other = source.panel, dataclasses.replace(SPEC, horizons=(1, 5))
    for table_of, spec, what in (
        (panel, other, "horizons"),
        (panel.until("2019-06-03"), SPEC, "panel"),
        (panel, dataclasses.replace(SPEC, features=Features(warm_up=6)), "features"),
        (panel, dataclasses.replace(SPEC, context=64), "pad, below 63"),
    ):
        with pytest.raises(DataError, match=f"made for other windows: {what}"):
            WindowSource(table_of, spec, source.table)
    with pytest.raises(ValueError, match="another panel or spec"):
        DataModule(panel, other, source=source, validation_start="2019-06-03")


def test_splits_are_purged_and_in_order(source):
    panel = source.panel
    train, validation, test = chronological_split(source, "2019-03-01", "2019-09-02", embargo=1)
    for span, last in ((train, "2019-03-01"), (validation, "2019-09-02")):
        window = source.gather(span.entries, known_by=span.known_by)
        _, _, known = source.targets(span.entries)
        assert (known[window.target_mask] <= span.known_by).all()
        assert panel.dates[span.known_by] < pd.Timestamp(last)
        assert window.target_mask[:, 0].all()
        assert not window.target_mask.all()  # the last windows' longer horizons reach beyond
    rows = [source.gather(span.entries).row_index for span in (train, validation, test)]
    assert rows[0].max() < rows[1].min() - 1
    assert rows[1].max() < rows[2].min() - 1


def test_without_validation_all_before_the_test_is_trained_on(source):
    data = DataModule(source.panel, source=source, validation_start=None, test_start="2019-06-03")
    row = source.panel.row("2019-06-03")
    expected = source.entries(0, known_by=row - 1)
    assert torch.equal(data.training.entries, expected)
    assert data.training.known_by == row - 1
    assert data.val_dataloader() == []
    whole = DataModule(source.panel, source=source, validation_start=None)
    assert len(whole.training.entries) == len(source.entries(0, known_by=len(source.panel.dates) - 1))
    with pytest.raises(DataError, match="in this order"):
        DataModule(source.panel, source=source, validation_start=None, test_start="2031-01-02")


@pytest.mark.parametrize("every_position", [True, False])
def test_an_epoch_of_targets_sees_each_once_on_average(source, every_position):
    data = DataModule(
        source.panel,
        source=source,
        validation_start=None,
        batch_size=4,
        batches_per_epoch="targets",
        every_position=every_position,
    )
    seen = sum(int(window.target_mask[..., 0].sum()) for window in data.train_dataloader())
    assert seen == pytest.approx(len(data.training.entries), rel=0.15)


def test_an_epoch_of_targets_is_no_longer_on_a_larger_market(source, monkeypatch):
    def batches(**options: object) -> int | None:
        return DataModule(source.panel, source=source, validation_start=None, **options).batches_per_epoch

    K, C = len(source.entries(known_by=len(source.panel.dates) - 1)), SPEC.context
    assert batches(batch_size=4) == round(K / (4 * C))
    monkeypatch.setattr(datamodule, "TARGETS", 40 * C)
    assert 40 * C < K
    assert batches(batch_size=4) == 10
    assert batches(batch_size=4, every_position=False) == 10 * C
    assert batches(batch_size=4, batches_per_epoch=77) == 77  # what is asked for in so many words


def test_sessions_that_windows_share_are_taken_once(source):
    C, entries = SPEC.context, source.entries()
    for some in (entries, entries[:30], entries[[3, 3, 4, 9, 9 + C, len(entries) - 1]], entries[5:6]):
        inputs, mask, place, scale = source.overlapping(some)
        window = source.gather(some)
        assert torch.equal(windows_of(inputs, place, C), window.inputs)
        assert torch.equal(windows_of(mask, place, C), window.mask)
        assert torch.equal(scale, window.scale)
    assert len(source.overlapping(entries[:30])[0]) < 30 + 2 * C


@pytest.mark.parametrize("embargo", [0, 1, 4])
def test_the_parts_are_those_of_walk_forward(source, embargo):
    train, validation, test = chronological_split(source, "2019-03-01", None, embargo)
    entries = source.entries()
    samples = source.samples(entries, horizon=SPEC.horizons[0])
    last = int(samples.start[samples.end < samples.rows].max())
    split = WalkForward(last + 1 - source.panel.row("2019-03-01"), n_splits=1, embargo=embargo).split(samples)
    for part, expected in zip((train, validation), next(split), strict=True):
        assert part.entries.tolist() == entries[expected].tolist()
    assert not len(test.entries)


def test_training_positions_see_no_label_of_validation(source):
    train, _, _ = chronological_split(source, "2019-03-01", "2019-09-02")
    window = source.gather(train.entries, known_by=train.known_by, every_position=True)
    free = source.gather(train.entries, every_position=True)
    assert window.target_mask.sum() < free.target_mask.sum()
    assert (window.target[~window.target_mask] == 0).all()


def test_random_batches_repeat_for_a_seed_and_an_epoch(source):
    data = DataModule(
        source.panel, SPEC, validation_start="2019-03-01", test_start="2019-09-02", batches_per_epoch=3, batch_size=4
    )
    a, b = ([w.asset_index * 10_000 + w.row_index for w in data.train_dataloader()] for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    assert not all(torch.equal(x, w.asset_index * 10_000 + w.row_index) for x, w in zip(a, loader, strict=True))
    assert sum(len(w) for w in data.val_dataloader()) == len(data.validation.entries)


def test_forecast_entries_wait_for_history_and_give_up_on_stale_assets():
    frame = make_prices({"AAA": "XNYS", "EEE": "XECB"}, "2019-01-02", "2019-12-30")
    panel = Panel.from_frame(frame[~((frame["asset"] == "EEE") & (frame["date"] > "2019-12-10"))])
    source = WindowSource(panel, SPEC)
    n = panel.assets.index("EEE")
    at = [panel.row(d) for d in ("2019-01-31", "2019-03-01", "2019-12-10", "2019-12-13", "2019-12-16")]
    _, valid = source.at(np.array(at), min_history=30, stale=3)
    assert valid[:, n].tolist() == [False, True, True, True, False]


def test_outcomes_count_each_session_once(source):
    panel = source.panel
    rows = np.arange(100, len(panel.dates))
    returns, known = outcomes(source, rows)
    later = panel.returns()[101:]
    for n in range(len(panel.assets)):
        counted = returns[:, 0, n].isfinite()
        assert (later[:, n].isfinite().sum() - counted.sum()).abs() <= 1 + SPEC.features.warm_up
        assert known[counted, 0, n].unique().numel() == counted.sum()
        at = known[counted, 0, n] - 101
        torch.testing.assert_close(returns[counted, 0, n].double(), later[at, n], rtol=1e-5, atol=1e-8)


def test_bad_settings_and_short_panels_are_refused(frame):
    with pytest.raises(ValueError, match="horizons must be positive and ascending"):
        WindowSpec(horizons=(10, 1))
    with pytest.raises(ValueError, match=r"decays must lie inside \(0, 1\)"):
        Features(scale_decay=1.0)
    few = frame[frame["date"] < "2018-01-10"]
    with pytest.raises(DataError, match="no asset has more than 5 returns"):
        WindowSource(Panel.from_frame(few), SPEC)
    with pytest.raises(DataError, match="must be in this order"):
        DataModule(Panel.from_frame(frame), SPEC, validation_start="2019-09-01", test_start="2019-03-01")
