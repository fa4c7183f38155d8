import pytest
import torch

from qtorch.distributions import Empirical
from qtorch.risk import (
    RiskFactorCategory,
    es_by_liquidity_horizon,
    expected_shortfall,
    internal_models_capital,
    liquidity_horizon_es,
    stressed_es,
)


def double(x) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_the_standards_formula_by_hand():
    # MAR33.5: 100^2 + (80 sqrt(1))^2 + (50 sqrt(2))^2 + (30 sqrt(2))^2 + (10 sqrt(6))^2 = 23800.
    es = double([100.0, 80.0, 50.0, 30.0, 10.0])
    assert liquidity_horizon_es(es).item() == pytest.approx(23_800**0.5)
    assert liquidity_horizon_es(double([100.0, 80.0]), (10, 20)).item() == pytest.approx(16_400**0.5)
    batch = torch.stack([es, 2 * es], dim=1)
    assert liquidity_horizon_es(batch).tolist() == pytest.approx([23_800**0.5, 2 * 23_800**0.5])


def test_one_horizon_for_all_is_the_square_root_of_time():
    for longest, factor in ((10, 1), (20, 2), (40, 4), (60, 6), (120, 12)):
        reached = double([7.0 if horizon <= longest else 0.0 for horizon in (10, 20, 40, 60, 120)])
        assert liquidity_horizon_es(reached).item() == pytest.approx(7 * factor**0.5)


def test_shortfalls_by_horizon_drop_the_liquid_factors():
    profits = torch.randn(400, 3, dtype=torch.float64)
    horizons = torch.tensor([10, 20, 60])
    es = es_by_liquidity_horizon(profits, horizons)
    for j, kept in enumerate(([0, 1, 2], [1, 2], [2], [2])):
        alone = expected_shortfall(Empirical(profits[:, kept].sum(1)), 0.975)
        assert es[j].item() == pytest.approx(alone.item())
    assert es[4] == 0


def test_stress_scales_up_never_down():
    assert stressed_es(double(50.0), double(12.0), double(10.0)).item() == pytest.approx(60.0)
    assert stressed_es(double(50.0), double(9.0), double(10.0)).item() == pytest.approx(50.0)
    with pytest.raises(ValueError, match="75 %"):
        stressed_es(double(50.0), double(14.0), double(10.0))


def test_half_of_the_diversification_counts():
    assert internal_models_capital(double(100.0), double([40.0, 60.0, 30.0, 20.0, 10.0])).item() == 130.0


def test_the_table_of_liquidity_horizons():
    # MAR33.12, table 2.
    by_horizon = {}
    for category in RiskFactorCategory:
        by_horizon.setdefault(category.liquidity_horizon, []).append(category.name)
    assert {horizon: len(names) for horizon, names in by_horizon.items()} == {10: 3, 20: 7, 40: 4, 60: 8, 120: 4}
    assert set(by_horizon[10]) == {"INTEREST_RATE_SPECIFIED_CURRENCY", "EQUITY_PRICE_LARGE_CAP", "FX_SPECIFIED_PAIR"}
    assert {"CREDIT_VOLATILITY", "OTHER_COMMODITY_VOLATILITY"} <= set(by_horizon[120])
    assert RiskFactorCategory.EQUITY_VOLATILITY_SMALL_CAP.liquidity_horizon == 60


def test_horizons_must_fit():
    with pytest.raises(ValueError, match="give 2 ascending"):
        liquidity_horizon_es(double([1.0, 1.0]))
    with pytest.raises(ValueError, match="give 2 ascending"):
        liquidity_horizon_es(double([1.0, 1.0]), (20, 10))
