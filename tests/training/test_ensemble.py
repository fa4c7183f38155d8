import dataclasses

import pytest
import torch

from qtorch.data import WindowSource, WindowSpec
from qtorch.models import Garch, default_ensemble
from qtorch.training import Ensemble, mixed
from tests.training.runs import SPEC, small_model, small_panel


@pytest.fixture(scope="module")
def source():
    return WindowSource(small_panel(), SPEC)


def test_an_ensemble_forecasts_the_mixture_of_its_members(source):
    models = [small_model(seed).eval() for seed in range(3)]
    panel, dates = source.panel, source.panel.dates[-2:]
    ensemble = Ensemble(models)
    forecast = ensemble.forecast(panel, dates, source=source)
    x = torch.tensor(-0.02)
    cdfs = [model.forecast(panel, dates).distribution.cdf(x) for model in models]
    torch.testing.assert_close(forecast.distribution.cdf(x), torch.stack(cdfs).double().mean(0), rtol=1e-5, atol=1e-7)
    tails = torch.stack([model.forecast(panel, dates).value_at_risk(0.99) for model in models])
    var = forecast.value_at_risk(0.99)
    assert (tails.amin(0) <= var).all()
    assert (var <= tails.amax(0)).all()
    assert len(forecast.to_frame()) == 2 * 2 * 4 * 3
    assert forecast.select(slice(0, 1)).value_at_risk(0.99).shape == (1, 2, 4)
    one_day = ensemble.forecast(panel, f"{dates[-1]:%Y-%m-%d}")
    torch.testing.assert_close(one_day.value_at_risk(0.99), var[-1:], rtol=1e-5, atol=0)
    one = Ensemble(models[:1]).forecast(panel, dates)
    assert torch.equal(one.value_at_risk(0.99), models[0].forecast(panel, dates).value_at_risk(0.99))
    nested = Ensemble([Ensemble(models[:2]), Ensemble(models[1:])]).forecast(panel, dates)
    mean = (cdfs[0] + 2 * cdfs[1] + cdfs[2]).double() / 4
    torch.testing.assert_close(nested.distribution.cdf(x), mean, rtol=1e-5, atol=1e-7)


def test_there_is_a_mixture_where_all_have_a_forecast(source):
    models = [small_model(seed).eval() for seed in range(2)]
    parts = [model.forecast(source.panel, source.panel.dates[-2:]) for model in models]
    holes = parts[1].mask.clone()
    holes[0, 2] = False
    forecast = mixed([parts[0], dataclasses.replace(parts[1], mask=holes)])
    assert torch.equal(forecast.mask, holes)
    assert torch.equal(forecast.value_at_risk(0.99)[:, 0].isfinite(), holes)


def test_what_cannot_be_mixed_is_named(source):
    model = small_model()
    a, b = (model.forecast(source.panel, source.panel.dates[k]) for k in (-1, -2))
    with pytest.raises(ValueError, match="forecasts of the same dates are mixed"):
        mixed([a, b])
    with pytest.raises(ValueError, match="forecasts of the same horizons"):
        mixed([a, dataclasses.replace(a, horizons=(1, 2))])
    with pytest.raises(ValueError, match="at least one model"):
        Ensemble([])
    with pytest.raises(ValueError, match="2 models need as many weights of 0 or more"):
        Ensemble([model, model], [1.0])
    with pytest.raises(ValueError, match="weights of 0 or more"):
        mixed([a, a], [1.0, -0.5])
    with pytest.raises(ValueError, match="1 models need as many weights"):
        mixed([a], [1.0, 2.0])


def test_models_of_several_kinds_are_mixed_by_weight(source):
    networks = [small_model(seed).eval() for seed in range(2)]
    ensemble = default_ensemble(networks, garch=0.4)
    panel, dates = source.panel, source.panel.dates[-3:]
    forecast = ensemble.forecast(panel, dates, source=source)
    garch = Garch(o=1, errors="skewed_t", refit_every=250, spec=WindowSpec(horizons=networks[0].spec.horizons))
    x = torch.tensor(-0.02)
    parts = [model.forecast(panel, dates, source=source).distribution.cdf(x).double() for model in (*networks, garch)]
    expected = 0.3 * (parts[0] + parts[1]) + 0.4 * parts[2]
    torch.testing.assert_close(forecast.distribution.cdf(x), expected, rtol=1e-6, atol=1e-9)
    assert forecast.value_at_risk(0.99)[:, 0][forecast.mask].gt(0).all()
    assert forecast.select(slice(0, 1)).expected_shortfall(0.99).shape == (1, 2, 4)
    assert default_ensemble(networks, garch=0.0).models == tuple(networks)
    nested = Ensemble([default_ensemble(networks[:1]), ensemble]).forecast(panel, dates, source=source)
    expected = 0.5 * (0.8 * parts[0] + 0.2 * parts[2]) + 0.5 * expected
    torch.testing.assert_close(nested.distribution.cdf(x), expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="same horizons"):
        default_ensemble([])
    with pytest.raises(ValueError, match="garch=1.0"):
        default_ensemble(networks, garch=1.0)
