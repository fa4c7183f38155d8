import pandas as pd
import pytest
import torch

from qtorch.risk.backtests import (
    BacktestResult,
    acerbi_szekely,
    acerbi_szekely_z3,
    berkowitz,
    christoffersen,
    diebold_mariano,
    du_escanciano,
    duration,
    dynamic_quantile,
    es_regression,
    exceedances,
    kupiec,
    mcneil_frey,
    model_confidence_set,
    nolde_ziegel,
    pit_uniformity,
    pl_attribution,
    shortfall_traffic_light,
    time_until_first_failure,
    traffic_light,
)
from qtorch.risk.backtests.series import compress, usable
from tests.risk.backtests.panels import forecasts


def test_a_few_series_print_one_by_one():
    exceeded = torch.arange(250)[:, None] < torch.tensor([3, 12])
    mask = torch.ones_like(exceeded)
    mask[:, 1] = False
    result = kupiec(torch.cat([exceeded, exceeded[:, 1:]], 1), 0.99, torch.cat([mask, mask[:, :1]], 1))
    text = result.table(["AAA", "BBB", "CCC"])
    assert text.splitlines()[:2] == [
        "Kupiec proportion of failures",
        "H0: exceedances come at the rate 1 - level",
    ]
    assert [line.split()[-1] for line in text.splitlines()[-3:]] == ["rejected", "testable", "rejected"]
    assert text.splitlines()[-3].startswith("AAA")
    assert repr(result) == "BacktestResult('Kupiec proportion of failures', 3 series)"
    assert str(christoffersen(exceeded, 0.99)).count("H0:") == 2


def test_many_series_print_a_summary():
    exceeded = torch.rand(250, 2000, generator=torch.Generator().manual_seed(0)) < 0.05
    exceeded[:, 7] = torch.arange(250) < 60
    text = str(kupiec(exceeded, 0.95))
    assert "2,000 series, 2,000 testable, 250 to 250 observations" in text
    assert "rejected at   5%" in text
    assert "(Benjamini-Hochberg): 1" in text
    assert text.splitlines()[-5].split()[0] == "7"
    assert len(text.splitlines()) < 20


def test_frames_have_a_row_for_each_series():
    exceeded = torch.rand(100, 3, 4) < 0.05
    frame = kupiec(exceeded, 0.95).to_frame()
    assert isinstance(frame.index, pd.MultiIndex)
    assert len(frame) == 12
    assert kupiec(exceeded[:, 0, 0], 0.95).to_frame().shape == (1, 4)
    named = traffic_light(exceeded[:, 0]).to_frame(list("abcd"))
    assert named.index.tolist() == list("abcd")
    with pytest.raises(ValueError, match="3 names for 4 series"):
        traffic_light(exceeded[:, 0]).to_frame(list("abc"))


def test_every_result_prints():
    x = torch.randn(60, 3)
    losses = torch.randn(60, 2, 20).double()
    for result in (
        diebold_mariano(x),
        pl_attribution(x, x),
        traffic_light(x < -2),
        model_confidence_set(losses, models=("GARCH", "EWMA"), draws=50),
        model_confidence_set(losses[..., 0], draws=50),
    ):
        assert result.name in str(result)


def test_compressing_keeps_the_order_and_drops_what_is_not_usable():
    x = torch.tensor([[1.0, torch.nan], [torch.nan, 2.0], [3.0, 4.0], [5.0, torch.nan]])
    there, packed = compress(usable(None, x=x), x)
    assert there.tolist() == [[True, True], [True, True], [True, False]]
    assert packed.tolist() == [[1, 2], [3, 4], [5, 0]]


def test_bad_input_is_refused_with_the_remedy():
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"b has shape \(5, 3\) but a \(5, 2\): give both as"):
        usable(None, a=x, b=torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"mask is torch.int64: give a bool tensor"):
        usable(torch.ones(5, 2, dtype=torch.long), a=x)
    for level in (0.0, 0.01, 1.0, 99.0):
        with pytest.raises(ValueError, match=f"level={level}: give the confidence"):
            kupiec(x > 0, level)
    with pytest.raises(ValueError, match="overlap=0: give the sessions"):
        kupiec(x > 0, 0.99, overlap=0)
    assert isinstance(kupiec(x > 0, 0.99), BacktestResult)


def test_one_series_without_an_axis_is_the_first_of_a_panel():
    f = forecasts(300, 2, 0.95)
    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))

    def results(part):
        y, var, es, u = (x[part] for x in (*f.risk, f.pit))
        hit = exceedances(y, var)
        for overlap in (1, 5):
            options = {"overlap": overlap, "generator": torch.Generator().manual_seed(0), "draws": 50}
            yield kupiec(hit, 0.95, overlap=overlap)
            yield time_until_first_failure(hit, 0.95, overlap=overlap)
            yield from christoffersen(hit, 0.95, **options)
            yield duration(hit, 0.95, **options)
            yield dynamic_quantile(y, var, 0.95, **options)
            yield from acerbi_szekely(y, var, es, 0.95, **options)
            yield from acerbi_szekely(y, var, es, 0.95, distribution=law, **options)
            yield acerbi_szekely_z3(y, law, 0.95, **options)
            yield mcneil_frey(y, var, es, 0.95, **options)
            yield nolde_ziegel(y, var, es, 0.95, overlap=overlap)
            yield nolde_ziegel(y, var, es, 0.95, one_sided=True, general=True, overlap=overlap)
            yield from es_regression(y, var, es, 0.95, overlap=overlap)[:2]
            yield from du_escanciano(u, 0.95, **options)
            yield berkowitz(u, overlap=overlap)
            yield berkowitz(u, level=0.95, overlap=overlap)
            yield from pit_uniformity(u, overlap=overlap)
            yield diebold_mariano(y, overlap=overlap)

    for one, panel in zip(results((slice(None), 0)), results(slice(None)), strict=True):
        assert one.p_value.shape == ()
        assert one.statistic.item() == pytest.approx(panel.statistic[0].item(), rel=1e-9, nan_ok=True), one.name
        assert "H0" in str(one)
    for one in (
        traffic_light(f.returns[:, 0] < 0),
        shortfall_traffic_light(f.pit[:, 0]),
        pl_attribution(f.returns[:, 0], f.returns[:, 0]),
    ):
        assert one.zone.shape == ()


@pytest.mark.parametrize("shape", [(0, 3), (50, 0)])
def test_a_panel_without_sessions_or_series_gives_no_verdict(shape):
    y, u = torch.zeros(shape, dtype=torch.float64), torch.full(shape, 0.5, dtype=torch.float64)
    risk = (y, u, 1.3 * u)
    law = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    for result in (
        kupiec(y > 0, 0.95),
        time_until_first_failure(y > 0, 0.95),
        *christoffersen(y > 0, 0.95),
        duration(y > 0, 0.95, draws=10),
        dynamic_quantile(y, u, 0.95),
        *acerbi_szekely(*risk, 0.95, draws=10),
        *acerbi_szekely(*risk, 0.95, distribution=law, draws=10),
        acerbi_szekely_z3(y, law, 0.95, draws=10),
        mcneil_frey(*risk, 0.95, draws=10),
        nolde_ziegel(*risk, 0.95),
        nolde_ziegel(*risk, 0.95, general=True, one_sided=True),
        *es_regression(*risk, 0.95)[:2],
        *du_escanciano(u, 0.95, draws=10),
        berkowitz(u),
        berkowitz(u, level=0.95),
        *pit_uniformity(u),
        diebold_mariano(y),
        diebold_mariano(y, panel=True),
    ):
        assert result.p_value.isnan().all(), result.name
        assert str(result).startswith(result.name)


def test_float32_forecasts_are_tested_in_float64():
    f = forecasts(300, 2, 0.95)
    single = [x.float() for x in f.risk]
    result = acerbi_szekely(*single, 0.95, draws=20).z2
    assert result.statistic.dtype == result.p_value.dtype == torch.float64
    assert dynamic_quantile(*single[:2], 0.95).statistic.dtype == torch.float64
    assert diebold_mariano(single[0]).statistic.dtype == torch.float64
