import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader

from qtorch.data import (
    BucketBatches,
    DataModule,
    Panel,
    WindowBatches,
    WindowDataset,
    WindowSource,
    WindowSpec,
    sampling_weights,
    whole,
)
from qtorch.data.datamodule import Span, WindowLoader
from tests.conftest import make_prices

SPEC = WindowSpec(context=16, horizons=(1, 3))


@pytest.fixture(scope="module")
def source() -> WindowSource:
    """One asset with a long history and two with short ones."""
    frame = make_prices({"AAA": "XNYS", "EEE": "XECB", "TTT": "XTKS"}, "2017-01-04", "2019-12-30")
    short = (frame["asset"] != "AAA") & (frame["date"] < "2019-06-03")
    return WindowSource(Panel.from_frame(frame[~short]), SPEC)


@pytest.mark.parametrize("batches", [None, 1, 3, 7])
@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_processes_share_the_batches_of_one(batches, replicas):
    entries = torch.arange(100)

    def made(**place: int) -> WindowBatches:
        return WindowBatches(entries, 8, batches=batches, shuffle=True, seed=3, **place)

    one = list(made())
    shares = [list(made(replicas=replicas, rank=rank)) for rank in range(replicas)]
    assert {len(share) for share in shares} == {len(made(replicas=replicas, rank=0))}
    together = [shares[i % replicas][i // replicas] for i in range(len(shares[0]) * replicas)]
    for i, batch in enumerate(together):
        assert torch.equal(batch, one[i % len(one)])  # those left over begin anew
    if batches is None:
        assert torch.cat(one).sort().values.equal(entries)


def test_the_seed_and_the_epoch_make_the_batches():
    def drawn(seed: int, epoch: int) -> torch.Tensor:
        batches = WindowBatches(torch.arange(1000), 10, batches=5, seed=seed)
        batches.set_epoch(epoch)
        return torch.cat(list(batches))

    assert drawn(1, 2).equal(drawn(1, 2))
    assert not drawn(1, 2).equal(drawn(1, 3))
    assert not drawn(1, 2).equal(drawn(2, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_no_batch(source, workers):
    entries = source.entries()
    windows = WindowDataset(source, Span(entries, len(source.panel.dates)))
    batches = WindowBatches(entries, 32, batches=20, seed=1)
    loader = WindowLoader(windows, batches, workers)
    count = 0
    for window, chosen in zip(loader, batches, strict=True):
        assert torch.equal(window.inputs, source.gather(chosen).inputs)
        assert torch.equal(window.target, source.gather(chosen).target)
        count += 1
    assert count == len(loader) == 20


def test_a_loader_of_torchs_own_fetches_batches_whole(source):
    data = DataModule(source.panel, SPEC, source=source, validation_start="2019-09-02", every_position=False)
    windows = data.training_set
    loader = DataLoader(windows, batch_size=50, collate_fn=whole)
    rows = torch.cat([window.row_index for window in loader])
    assert len(rows) == len(windows)
    assert torch.equal(rows, source.gather(data.training.entries).row_index)
    for third in (3, np.int64(3)):
        assert torch.equal(windows[third].inputs, source.gather(data.training.entries[3:4]).inputs)


@pytest.mark.parametrize("by", ["window", "asset", "date"])
def test_weights_draw_assets_or_dates_alike(source, by):
    entries = source.entries()
    weights = sampling_weights(source, entries, by)
    if by == "window":
        assert weights is None
        return
    batches = WindowBatches(entries, 1000, batches=200, weights=weights, seed=0)
    drawn = source.gather(torch.cat(list(batches)))
    index = drawn.asset_index if by == "asset" else drawn.row_index
    share = index.long().bincount().double()
    share = share[share > 0] / len(index)
    n = len(share)
    assert n == (3 if by == "asset" else len(source.gather(entries).row_index.unique()))
    chi2 = (len(index) * (share - 1 / n) ** 2 * n).sum().item()
    assert stats.chi2.sf(chi2, n - 1) > 1e-4


def test_recency_halves_by_the_half_life(source):
    entries = source.entries()
    weights = sampling_weights(source, entries, half_life=50.0)
    rows = source.gather(entries).row_index
    latest = rows.max()
    for back in (0, 50, 100):
        np.testing.assert_allclose(weights[rows == latest - back], 0.5 ** (back / 50))


def test_buckets_take_each_window_once_with_little_padding(source):
    entries = source.entries()
    batches = BucketBatches(source, entries, 32, seed=1)
    windows = WindowDataset(source, Span(entries, len(source.panel.dates)))
    seen, padding, contexts = [], 0, set()
    for chosen, context in batches:
        window = windows[chosen, context]
        whole_window = source.gather(chosen)
        assert window.inputs.shape[1] == context
        assert torch.equal(window.inputs, whole_window.inputs[:, -context:])
        assert torch.equal(window.target, whole_window.target)
        assert torch.equal(window.scale, whole_window.scale)
        assert not whole_window.mask[:, :-context].any()
        seen.append(chosen)
        padding += (~window.mask).sum().item()
        contexts.add(context)
    assert torch.cat(seen).sort().values.equal(entries.sort().values)
    assert contexts == {2, 4, 8, 16}
    assert padding < 0.5 * (~source.gather(entries).mask).sum().item()
    again = list(BucketBatches(source, entries, 32, seed=1))
    assert all(a.equal(b) and c == d for (a, c), (b, d) in zip(batches, again, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_module_trains_on_buckets(source, workers):
    data = DataModule(
        source.panel, source=source, validation_start="2019-11-01", batch_size=32, buckets=True, workers=workers
    )
    windows = list(data.train_dataloader())
    assert len(windows) == len(data.train_dataloader())
    assert {window.inputs.shape[1] for window in windows} == {2, 4, 8, 16}
    seen = torch.cat([window.asset_index * 10_000 + window.row_index for window in windows])
    whole_windows = source.gather(data.training.entries)
    expected = whole_windows.asset_index * 10_000 + whole_windows.row_index
    assert torch.equal(seen.sort().values, expected.sort().values)
    with pytest.raises(ValueError, match="buckets take each window of one asset once"):
        DataModule(source.panel, source=source, validation_start="2019-11-01", buckets=True, half_life=9.0)


def test_jagged_windows_attend_as_padded_ones(source):
    window = source.gather(source.entries()[:40])
    lengths = window.mask.sum(1)
    assert lengths.min() < 16 == lengths.max()
    jagged = window.jagged()
    assert torch.equal(jagged.offsets().diff(), lengths)
    scores = torch.nn.functional.scaled_dot_product_attention
    F = window.inputs.shape[-1]
    nested = jagged.unsqueeze(2).transpose(1, 2)
    out = scores(nested, nested, nested).transpose(1, 2).squeeze(2)
    padded = window.inputs.unsqueeze(1)
    expected = scores(padded, padded, padded, attn_mask=window.mask[:, None, None, :]).squeeze(1)
    torch.testing.assert_close(out.values(), expected[window.mask], rtol=1e-4, atol=1e-5)
    assert out.values().shape == (int(lengths.sum()), F)


def test_bad_settings_are_refused(source):
    entries = source.entries()
    for make, words in (
        (lambda: WindowBatches(entries[:0], 8), "there must be a window, not 0"),
        (lambda: WindowBatches(entries, 0), "at least 1, not 0"),
        (lambda: WindowBatches(entries, 8, weights=torch.ones(len(entries)).double()), "a number of batches"),
        (lambda: WindowBatches(entries, 8, batches=1, weights=0.0 * entries.double()), "not all 0"),
        (lambda: WindowBatches(entries, 8, batches=1, weights=torch.nan * entries.double()), "must be finite"),
        (lambda: WindowBatches(entries, 8, replicas=2, rank=2), r"rank 2 is outside 0\.\.1"),
        (lambda: BucketBatches(source, entries, 8, buckets=(0,)), "at least 1"),
        (lambda: sampling_weights(source, entries, half_life=0.0), "half_life positive, not 0.0"),
        (lambda: source.gather(entries[:1], context=17), "1 to 16 sessions"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.slow
def test_two_processes_train_on_the_batches_of_one(tmp_path):
    """Lightning's own distributed training leaves the sampler as it is, and moves its epochs on."""
    script = tmp_path / "train.py"
    script.write_text(
        """
import sys, torch, lightning
from qtorch.data import DataModule, Panel, WindowSpec
from tests.conftest import make_prices, make_model
panel = Panel.from_frame(make_prices({"AAA": "XNYS", "EEE": "XECB"}, "2017-01-04", "2019-12-30"))
spec = WindowSpec(context=16, horizons=(1, 5))
data = DataModule(panel, spec, validation_start="2019-06-03", batch_size=8, batches_per_epoch=6)
seen = []
class Watch(lightning.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        seen.append((batch.asset_index * 10000 + batch.row_index).tolist())
lightning.seed_everything(0)
devices = int(sys.argv[1])
trainer = lightning.Trainer(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
    max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[Watch()])
trainer.fit(make_model(spec), datamodule=data)
torch.save(seen, f"{sys.argv[2]}.{trainer.global_rank}")
"""
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    for devices in (1, 2):
        command = [sys.executable, str(script), str(devices), str(tmp_path / f"seen{devices}")]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    one = torch.load(tmp_path / "seen1.0")
    two = [torch.load(tmp_path / f"seen2.{rank}") for rank in range(2)]
    assert len(one) == 12
    assert [two[i % 2][i // 2] for i in range(12)] == one
