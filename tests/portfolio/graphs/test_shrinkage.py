from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage

from qtorch.data import Panel
from qtorch.portfolio.graphs import (
    Correlations,
    ewma_correlation,
    positive_semidefinite,
    rolling_correlation,
    shrinkage_intensity,
    shrunk,
)


def of_returns(x: np.ndarray, n: int) -> Correlations:
    """Rolling correlations over blocks of n rows of independent returns."""
    days = pd.bdate_range("2000-01-03", periods=len(x) + 1)
    prices = np.vstack([np.ones_like(x[:1]), (1 + 0.01 * x).cumprod(0)])
    panel = Panel.from_frame(pd.DataFrame(prices, days, [f"A{i:02d}" for i in range(x.shape[1])]), exchange="24/5")
    return rolling_correlation(panel, np.arange(n, len(x) + 1, n), window=n, min_common=20)


def equicorrelated(N: int, rho: float, spread: float = 0.0) -> np.ndarray:
    """A correlation matrix of one factor, with loadings around the root of rho."""
    loadings = np.clip(np.sqrt(rho) + spread * np.linspace(-1, 1, N), 0, 0.98)
    matrix = np.outer(loadings, loadings)
    np.fill_diagonal(matrix, 1.0)
    return matrix


@pytest.mark.parametrize("df", [None, 6.0])
@pytest.mark.parametrize(("target", "rho", "spread"), [("constant", 0.3, 0.2), ("identity", 0.1, 0.15)])
def test_the_intensity_is_near_the_one_that_would_be_best(df, target, rho, spread):
    """Over fifty windows of a known law, elliptical ones with heavy tails too."""
    N, n, R = 20, 60, 50
    rng = np.random.default_rng(3)
    truth = equicorrelated(N, rho, spread)
    x = rng.standard_normal((n * R, N)) @ np.linalg.cholesky(truth).T
    if df is not None:
        x /= np.sqrt(rng.chisquare(df, (n * R, 1)) / df)
    found = of_returns(x, n)
    off = ~torch.eye(N, dtype=torch.bool)
    r, true = found.values[:, off].double(), torch.from_numpy(truth)[off]
    t = r.mean(1, keepdim=True) if target == "constant" else torch.zeros(R, 1, dtype=torch.float64)
    best = ((r - true) * (r - t)).sum() / ((r - t) ** 2).sum()  # least squared error over all windows
    given = shrinkage_intensity(found, target)
    assert given.mean().item() == pytest.approx(best.item(), abs=0.1)

    def loss(values: torch.Tensor) -> float:
        return ((values[:, off].double() - true) ** 2).mean().item()

    assert loss(shrunk(found, target).values) < min(loss(found.values), loss(t[:, :, None].expand(R, N, N)))


def test_towards_nothing_it_is_near_ledoit_and_wolfs():
    """Theirs is of covariances, so that the returns are standardised."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 30)) @ np.linalg.cholesky(equicorrelated(30, 0.05, 0.1)).T
    given = shrinkage_intensity(of_returns(x, 400), "identity").item()
    assert given == pytest.approx(ledoit_wolf_shrinkage((x - x.mean(0)) / x.std(0)), rel=0.15)


def test_it_is_the_mean_of_the_sample_and_the_target(market_panel):
    found = rolling_correlation(market_panel, [300, 500])
    there = torch.logical_and(found.values.isfinite(), ~torch.eye(13, dtype=torch.bool))
    half = shrunk(found, intensity=torch.tensor([0.5, 0.25]))
    for r, a in enumerate((0.5, 0.25)):
        mean = found.values[r][there[r]].mean()
        torch.testing.assert_close(half.values[r][there[r]], (1 - a) * found.values[r][there[r]] + a * mean)
    torch.testing.assert_close(
        half.values.diagonal(dim1=1, dim2=2), torch.where(found.mask, 1.0, torch.nan), equal_nan=True
    )


@pytest.mark.parametrize("lead_lag", [False, True])
def test_covariances_of_incomplete_returns_are_positive(market_panel, lead_lag):
    found = ewma_correlation(market_panel, [150, 400, 777], half_life=15.0, min_common=25, lead_lag=lead_lag)
    covariance = shrunk(found, intensity=0.0).covariance()
    for r in range(3):
        alive = found.mask[r]
        assert torch.linalg.eigvalsh(covariance[r][alive][:, alive].double()).min() > -1e-9
        assert covariance[r][~alive].isnan().all()


def test_repair_makes_the_least_of_changes():
    """Pairwise observations can say what no three assets can be; what is possible stays, bit by bit."""
    bad = torch.tensor([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    good = torch.tensor([[1.0, 0.9, 0.6], [0.9, 1.0, 0.5], [0.6, 0.5, 1.0]])
    values = torch.full((2, 4, 4), torch.nan)
    values[:, :3, :3] = torch.stack([bad, good])
    mask = torch.tensor([[True, True, True, False]]).expand(2, 4)
    given = Correlations(np.array([0, 1]), values, torch.ones(2, 4, 4), mask, torch.ones(2, 4), torch.ones(2))
    found = positive_semidefinite(given)
    assert torch.linalg.eigvalsh(bad).min() < -0.7
    repaired = found.values[0, :3, :3].double()
    assert torch.linalg.eigvalsh(repaired).min() > 0
    torch.testing.assert_close(repaired.diagonal(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(
        repaired.abs(), torch.tensor([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1.0]]).double(), rtol=0, atol=1e-5
    )
    assert torch.equal(found.values[1, :3, :3], good)
    assert found.values[:, 3].isnan().all()
    assert positive_semidefinite(found).values is found.values
    holes = values.clone()
    holes[1, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"values\[1, 0, 1\] is NaN: 1 common"):
        positive_semidefinite(replace(given, values=holes))


def test_few_assets_have_an_intensity_too():
    nothing = torch.full((2, 3, 3), torch.nan)
    nothing[1, 0, 0] = 1.0
    mask = torch.tensor([[False, False, False], [True, False, False]])
    given = Correlations(np.array([0, 1]), nothing, torch.zeros(2, 3, 3), mask, torch.ones(2, 3), torch.ones(2))
    assert shrinkage_intensity(given).tolist() == [0.0, 0.0]
    torch.testing.assert_close(shrunk(given).values, nothing, equal_nan=True)


def test_unknown_settings_are_refused(market_panel):
    found = rolling_correlation(market_panel, [300])
    with pytest.raises(ValueError, match="constant, identity"):
        shrunk(found, "market")
    with pytest.raises(ValueError, match="intensity"):
        shrunk(found, intensity=1.5)
