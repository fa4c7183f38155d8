"""Walks that were stopped go on from their folder, and others are refused it."""

import json
import sys
from functools import partial

import pandas as pd
import pytest
import torch

from qtorch.backtest import RefitError, walk_forward
from qtorch.data import WindowSource, WindowSpec
from qtorch.deploy import BundleError, load
from qtorch.models import RiskMetrics
from qtorch.training import Ensemble
from tests.backtest.walk.test_forward import REFITS, Pickling, make_model
from tests.training.runs import SPEC, small_panel

FITS = sys.modules["qtorch.training.refit"]  # the package has the function of this name
END = "2019-09-20"
QUICK = {
    "max_epochs": 1,
    "warm_epochs": 1,
    "data": {"batch_size": 8, "batches_per_epoch": 2},
    "training": {"accelerator": "cpu"},
}


@pytest.fixture(scope="module")
def source():
    return WindowSource(small_panel(), SPEC)


@pytest.fixture
def fits(monkeypatch):
    """The refits that were begun; set `fails` to the number of one that is to fail."""

    class Fits:
        count, fails = 0, None

        def __call__(self, original, *arguments, **options):
            self.count += 1
            if self.count == self.fails:
                raise MemoryError("no room")
            return original(*arguments, **options)

    fits = Fits()
    monkeypatch.setattr(FITS, "fit", partial(fits, FITS.fit))
    return fits


def test_a_walk_goes_on_where_it_stopped(source, tmp_path, fits):
    walk = partial(walk_forward, source.panel, make_model, REFITS, source=source, end=END, **QUICK)
    whole = walk(folder=tmp_path / "whole")
    assert fits.count == 3
    fits.count, fits.fails = 0, 3
    with pytest.raises(RefitError, match=r"refit at 2019-09-03, seed 0, failed .*no room .*kept in") as told:
        walk(folder=tmp_path / "stopped", executor=Pickling())
    assert (told.value.date, told.value.seed) == (pd.Timestamp("2019-09-03"), 0)
    kept = sorted(path.parent.name for path in (tmp_path / "stopped").glob("refit=*/seed=0"))
    assert kept == ["refit=2019-07-04", "refit=2019-08-01"]
    fits.count, fits.fails = 0, None
    again = walk(folder=tmp_path / "stopped", executor=Pickling())
    assert fits.count == 1
    pd.testing.assert_frame_equal(again.to_frame(), whole.to_frame(), check_exact=True)
    for home in (tmp_path / "whole").glob("refit=*/seed=0"):
        model, about = load(home, allow=["tests"])
        other = tmp_path / "stopped" / home.relative_to(tmp_path / "whole")
        assert (other / "weights.safetensors").read_bytes() == (home / "weights.safetensors").read_bytes()
        frame = pd.read_parquet(home / "walk.parquet")
        assert set(frame["refit"]) == {pd.Timestamp(about["refit"])}
        pd.testing.assert_frame_equal(frame, whole.to_frame().query("refit in @frame.refit").reset_index(drop=True))
        assert model.spec == SPEC


def test_another_walk_is_refused_and_told_apart(source, tmp_path):
    walk = partial(walk_forward, source.panel, RiskMetrics, REFITS, end=END, folder=tmp_path)
    first = walk().to_frame()
    pd.testing.assert_frame_equal(walk().to_frame(), first)
    refused = partial(pytest.raises, ValueError)
    with refused(match=r"holds another walk. end: '2019-09-20' there, '2019-09-23' here. Call with"):
        walk(end="2019-09-23")
    with refused(match=r"another walk. model.settings: .*min_history=60.* there, .*min_history=61.* here. Call"):
        walk_forward(source.panel, partial(RiskMetrics, min_history=61), REFITS, end=END, folder=tmp_path)
    with refused(match=r"another walk. panel: .* there, .* here. Call"):
        walk_forward(small_panel(seed=3), RiskMetrics, REFITS, end=END, folder=tmp_path)
    about = json.loads((tmp_path / "walk.json").read_text())
    (tmp_path / "walk.json").write_text(json.dumps(about | {"version of torch": "1.0"}))
    with refused(match=r"another walk. version of torch: 1.0 there"):
        walk()


def test_a_changed_network_or_a_harmed_bundle_is_refused(source, tmp_path):
    walk = partial(walk_forward, source.panel, source=source, end="2019-07-09", folder=tmp_path, **QUICK)
    walk(make_model, REFITS[:1])

    def other():
        model = make_model()
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
        return model

    with pytest.raises(ValueError, match=r"another walk. seeds: \(0,\) there, \(1, 2\) here. Call"):
        walk(make_model, REFITS[:1], seeds=(1, 2))
    with pytest.raises(
        ValueError, match=r"another walk. source.windows: \{'context': 8.* there, \{'context': 7.* here. Call"
    ):
        walk(make_model, REFITS[:1], source=WindowSource(source.panel, WindowSpec(context=7, horizons=SPEC.horizons)))
    with pytest.raises(ValueError, match=r"another walk. model.fresh_weights: .* here. Call"):
        walk(other, REFITS[:1])
    weights = tmp_path / "refit=2019-07-04" / "seed=0" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(RefitError, match="BundleError") as told:
        walk(make_model, REFITS[:1])
    assert isinstance(told.value.__cause__, BundleError)


def test_models_that_do_not_show_their_settings_are_not_kept(source, tmp_path):
    def ensemble(min_history):
        return Ensemble([RiskMetrics(min_history=min_history), RiskMetrics()], weights=[1.0, 2.0])

    class Silent:
        def __init__(self, inner):
            self.inner = inner

        def forecast(self, *arguments, **options):
            return self.inner.forecast(*arguments, **options)

    walk = partial(walk_forward, source.panel, refits=REFITS[:1], end="2019-07-09")
    walk(lambda: ensemble(60), folder=tmp_path)
    walk(lambda: ensemble(60), folder=tmp_path)
    with pytest.raises(ValueError, match=r"another walk. model.settings: .*min_history=60.* there, .*=200"):
        walk(lambda: ensemble(200), folder=tmp_path)
    for model in (Silent(RiskMetrics()), Ensemble([Silent(RiskMetrics())])):
        with pytest.raises(TypeError, match=r"model shows itself by an address .*Silent object at 0x.* __repr__"):
            walk(lambda model=model: model, folder=tmp_path / "other")
        assert walk(lambda model=model: model).forecast.mask.any()
    assert not (tmp_path / "other").exists()
    assert repr(ensemble(60)) == f"Ensemble([{RiskMetrics(min_history=60)!r}, {RiskMetrics()!r}], [1.0, 2.0])"
