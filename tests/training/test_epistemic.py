"""How sure a model is on the synthetic market: less of young assets and of crashes, more with more data."""

import lightning
import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.data import DataModule, Features, Panel, SyntheticMarket, WindowSpec
from qtorch.data.features import Label, default_features
from qtorch.data.synthetic import Absences
from qtorch.models.distance_aware import DistanceAware
from qtorch.training import Laplace, fit

START, END, TEST = "2014-01-02", "2016-12-30", "2016-07-01"
ALWAYS = Absences(late=0.0, early=0.0, halts=0.0, faults=0.0)


@pytest.fixture(scope="module")
def frame():
    market = SyntheticMarket({"XNYS": 6}, start=START, end=END, absences=ALWAYS).simulate()
    return market.frame[["date", "asset", "exchange", "close"]]


def trained(panel, spec, width=24, features=None):
    """A small pooled network, and its training data."""
    lightning.seed_everything(0, verbose=False)
    encoder = models.Recurrent(len(spec.features), width)
    if features:
        encoder = DistanceAware(encoder, features, length_scale=2.0)
    model = Forecaster(encoder, heads.StudentT(encoder.out_features, spec.horizons), spec, learning_rate=3e-3)
    data = DataModule(panel, spec, validation_start=None, test_start=TEST, batches_per_epoch=20)
    fit(model, data, max_epochs=1, accelerator="cpu", averaging=None)
    return model, data


def doubt(forecast):
    """The epistemic part of the variance, and the width of the value at risk's band in units of it: `[D, N]`."""
    parts = forecast.decompose()
    low, high = forecast.epistemic_interval(0.99)
    width = (high - low) / forecast.value_at_risk(0.99)
    return (parts.epistemic / (parts.epistemic + parts.aleatoric))[:, 0], width[:, 0]


@pytest.mark.parametrize("half", [0, 1])
def test_a_model_is_less_sure_of_assets_with_little_history(frame, half):
    """Whichever half of the assets it is, with a label of each asset: a weight that its own targets alone tell of."""
    assets = sorted(frame["asset"].unique())
    young = assets[half::2]
    listed = frame[~frame["asset"].isin(young) | (frame["date"] >= "2016-05-02")]
    panel = Panel.from_frame(listed)
    label = Label.of_assets("asset", {asset: asset for asset in assets})
    spec = WindowSpec(context=16, horizons=(1,), features=Features((*default_features(), label)))
    model, data = trained(panel, spec)
    share, width = doubt(Laplace.fit(model, data).forecast(panel, panel.dates[-40:]))
    is_young = torch.tensor([asset in young for asset in panel.assets])
    for measure in (share, width):
        assert measure[:, is_young].mean() > 1.15 * measure[:, ~is_young].mean()


def test_a_distance_aware_model_is_less_sure_of_a_crash(frame):
    """All fall by 30 % at once, as on no day of training."""
    panel = Panel.from_frame(frame)
    model, data = trained(panel, WindowSpec(context=16, horizons=(1,)), features=48)
    sure = Laplace.fit(model, data, structure="kronecker", prior_scale=1.0)
    crash = frame.copy()
    crash.loc[crash["date"] == panel.dates[-1], "close"] *= 0.7
    calm = doubt(sure.forecast(panel, panel.dates[-60:]))
    wild = doubt(sure.forecast(Panel.from_frame(crash), panel.dates[-1]))
    for before, after in zip(calm, wild, strict=True):
        assert (after > 1.5 * before.mean()).all()


def test_epistemic_variance_falls_as_one_over_the_targets(frame):
    """The same network's last layer, fitted to eight months and to two and a half years."""
    panel = Panel.from_frame(frame)
    spec = WindowSpec(context=16, horizons=(1,))
    model, _ = trained(panel, spec, width=8)
    counts, shares = [], []
    for start in ("2015-11-02", START):
        seen = Panel.from_frame(frame[frame["date"] >= start])
        data = DataModule(seen, spec, validation_start=None, test_start=TEST)
        posterior = Laplace.fit(model, data, prior_scale=3.0, draws=64)
        counts.append(data.observations())
        shares.append(doubt(posterior.forecast(panel, panel.dates[-60:]))[0].mean().item())
    logs = torch.tensor([counts, shares]).log()
    count, share = (logs[:, 1] - logs[:, 0]).tolist()
    assert share / count == pytest.approx(-1.0, abs=0.15)
