import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.data import DataModule, Panel, PanelWindowSource, WalkForward, WindowSource, WindowSpec
from tests.conftest import make_prices

SPEC = WindowSpec(context=8, horizons=(1, 3))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    frame = make_prices({"AAA": "XNYS", "EEE": "XECB", "TTT": "XTKS"}, "2018-01-04", "2019-03-29")
    frame = frame[~((frame["asset"] == "TTT") & (frame["date"] > "2018-11-02"))]  # ends 100 sessions early
    return frame.drop(frame.sample(frac=0.04, random_state=3).index).reset_index(drop=True)


@pytest.fixture(scope="module")
def panel(frame) -> Panel:
    return Panel.from_frame(frame)


def test_content_is_that_of_the_own_windows_at_each_row(panel):
    source, own = PanelWindowSource(panel, SPEC), WindowSource(panel, SPEC)
    rows = source.entries()
    window = source.gather(rows)
    N, F = len(panel.assets), len(SPEC.features)
    assert window.inputs.shape == (len(rows), 8, N, F)
    assert window.mask.shape == (len(rows), 8, N)
    assert window.target.shape == window.target_mask.shape == (len(rows), 2, N)
    single = own.gather(own.entries())
    last = {(int(a), int(t)): b for b, (a, t) in enumerate(zip(single.asset_index, single.row_index, strict=True))}
    for b, row in enumerate(rows.tolist()):
        for n in range(N):
            for c in range(8):
                at = last.get((n, row - 7 + c))
                assert bool(window.mask[b, c, n]) == (at is not None)
                expected = torch.zeros(F) if at is None else single.inputs[at, -1]
                assert torch.equal(window.inputs[b, c, n], expected)
            at = last.get((n, row))
            if at is None:
                assert not window.target_mask[b, :, n].any()
            else:
                assert torch.equal(window.target[b, :, n], single.target[at])
                assert torch.equal(window.target_mask[b, :, n], single.target_mask[at])
                assert window.scale[b, n] == single.scale[at]


def test_an_asset_that_ended_early_sits_at_its_own_dates(panel, frame):
    source = PanelWindowSource(panel, SPEC)
    n = panel.assets.index("TTT")
    window = source.gather(torch.tensor([panel.row("2018-11-02"), len(panel.dates) - 1]))
    assert window.mask[0, -1, n]
    assert not window.mask[1, :, n].any()
    held = frame[frame["asset"] == "TTT"]["date"]
    rows = source.entries()
    seen = source.gather(rows).mask[:, -1, n]
    assert set(panel.dates[rows[seen].numpy()]) <= set(held)
    assert seen.sum() == len(held) - 1 - SPEC.features.first_usable


def test_a_closed_asset_keeps_the_scale_of_its_last_session(panel):
    source = PanelWindowSource(panel, SPEC)
    n = panel.assets.index("AAA")
    rows = torch.tensor([panel.row("2018-07-03"), panel.row("2018-07-04")])
    window = source.gather(rows)
    assert not window.mask[1, -1, n]
    assert window.scale[0, n] == window.scale[1, n] != 1


def test_known_by_masks_later_targets(panel):
    source = PanelWindowSource(panel, SPEC)
    rows = source.entries(known_by=200)
    free, bound = source.gather(rows), source.gather(rows, known_by=200)
    assert bound.target_mask.sum() < free.target_mask.sum()
    assert (bound.target[~bound.target_mask] == 0).all()
    samples = source.samples()
    assert (samples.end >= samples.start).all()
    assert len(samples) == len(source.entries())


def test_what_is_not_observed_changes_no_bit(panel):
    values = panel.values.clone()
    values[~panel.mask] = 50.0
    a, b = (PanelWindowSource(p, SPEC) for p in (panel, dataclasses.replace(panel, values=values)))
    rows = a.entries()
    for field in dataclasses.fields(a.gather(rows[:1])):
        assert torch.equal(getattr(a.gather(rows), field.name), getattr(b.gather(rows), field.name))


def test_targets_are_over_own_sessions(panel, frame):
    window = PanelWindowSource(panel, SPEC).gather(torch.tensor([panel.row("2018-07-03")]))
    closes = frame[frame["asset"] == "AAA"].set_index("date")["close"]
    at = closes.index.get_loc(pd.Timestamp("2018-07-03"))
    expected = closes.iloc[[at + 1, at + 3]].to_numpy() / closes.iloc[at] - 1
    np.testing.assert_allclose(window.target[0, :, panel.assets.index("AAA")], expected, rtol=1e-5)


def test_targets_of_every_row_are_those_of_the_windows_that_end_there(panel):
    source = PanelWindowSource(panel, SPEC)
    rows = source.entries(first=60)
    every = source.gather(rows, every_position=True, known_by=200, embargo=2)
    assert every.target.shape == every.target_mask.shape == (len(rows), 8, 2, len(panel.assets))
    for c in range(8):
        one = source.gather(rows - 7 + c, known_by=200, embargo=2)
        assert torch.equal(every.target[:, c], one.target)
        assert torch.equal(every.target_mask[:, c], one.target_mask)
        assert torch.equal(every.scale[:, c], one.scale)
    short = source.gather(rows, context=3)
    assert torch.equal(short.inputs, source.gather(rows).inputs[:, -3:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_module_delivers_them(panel, workers):
    source = PanelWindowSource(panel, SPEC)
    data = DataModule(
        panel,
        SPEC,
        source=source,
        validation_start="2018-12-03",
        embargo=2,
        batch_size=4,
        batches_per_epoch=6,
        half_life=50.0,
        workers=workers,
    )
    drawn = list(data.train_dataloader())
    assert [len(window) for window in drawn] == [4] * 6
    assert all(window.target.shape == (4, 8, 2, len(panel.assets)) for window in drawn)
    assert max(int(window.row_index.max()) for window in drawn) < panel.row("2018-12-03")
    rows = torch.cat([window.row_index for window in data.val_dataloader()])
    assert torch.equal(rows, data.validation.entries)
    assert rows.min() == panel.row("2018-12-03")
    for words, options in (("no asset|none to weigh", {"sample_by": "asset"}), ("buckets", {"buckets": True})):
        with pytest.raises(ValueError, match=words):
            DataModule(panel, SPEC, source=source, validation_start="2018-12-03", **options)


def test_rows_are_purged_by_the_last_label_of_any_asset():
    frame = make_prices({"AAA": "XNYS", "BBB": "XNYS"}, "2018-01-04", "2018-12-31")
    sparse = frame["asset"] == "BBB"
    kept = ~sparse | (frame["date"] < "2018-04-02") | (frame["date"].dt.day == 2)  # then once a month at the most
    source = PanelWindowSource(Panel.from_frame(frame[kept]), SPEC)
    samples = source.samples()
    window = source.gather(source.entries())
    own = WindowSource(source.panel, SPEC, source.table)
    position = source._grids[0][window.row_index].long()
    _, _, when = own.targets(position - (SPEC.context - 1))
    last = torch.where(window.target_mask.movedim(1, 2), when, -1).flatten(1).max(1).values
    known = last >= 0
    assert torch.equal(torch.from_numpy(samples.end)[known], last[known])
    assert (samples.end[~known.numpy()] == samples.rows).all()
    for train, test in WalkForward(12, n_splits=12).split(source):
        assert last[torch.from_numpy(train)].max() < samples.start[test].min()
