"""Comparisons of forecasts: Diebold-Mariano, the model confidence set, and multiplicity."""

import numpy as np
import pytest
import torch
from scipy import stats

from qtorch.risk.backtests import benjamini_hochberg, diebold_mariano, model_confidence_set
from qtorch.risk.backtests.confidence_set import resampled
from tests.risk.backtests.panels import holes, share_rejected


def reference_t(d: np.ndarray, lags: int | None = None) -> float:
    n, u = len(d), d - d.mean()
    lags = int(np.floor(4 * (n / 100) ** (2 / 9))) if lags is None else lags
    variance = u @ u / n + 2 * sum((1 - k / (lags + 1)) * (u[k:] @ u[:-k]) / n for k in range(1, lags + 1))
    return d.mean() / np.sqrt(variance / n)


def test_diebold_mariano_on_a_panel_with_holes_is_the_loop_over_series():
    d = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d[1:] += 0.5 * d[:-1]
    d[10, 0] = torch.nan
    mask = holes((300, 5), 0.3)
    for lags in (None, 0, 7):
        test = diebold_mariano(d, mask, lags=lags)
        for n in range(5):
            used = d[mask[:, n], n].numpy()
            expected = reference_t(used[np.isfinite(used)], lags)
            assert test.statistic[n].item() == pytest.approx(expected, rel=1e-10)
            assert test.p_value[n].item() == pytest.approx(2 * stats.norm.sf(abs(expected)), rel=1e-8)
    panel = diebold_mariano(d, mask, panel=True)
    mean = torch.where(mask & d.isfinite(), d, torch.nan).nanmean(1).numpy()
    mean = mean[np.isfinite(mean)]
    assert panel.statistic.item() == pytest.approx(reference_t(mean), rel=1e-10)
    small = diebold_mariano(d[11:], small_sample=True)
    expected = np.array([reference_t(x) for x in d[11:].T.numpy()]) * np.sqrt(288 / 289)
    assert small.statistic.numpy() == pytest.approx(expected, rel=1e-10)
    assert small.p_value.numpy() == pytest.approx(2 * stats.t.sf(np.abs(expected), 288), rel=1e-7)


def test_windows_that_overlap_have_at_least_the_variance_of_their_overlap():
    d = torch.randn(290, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t, small = (diebold_mariano(d, small_sample=small, overlap=5).statistic for small in (False, True))
    least = 1 + 2 * sum((1 - k / 5) ** 2 * (1 - k / 290) for k in range(1, 5))
    expected = [x.mean() / np.sqrt(x.var() * least / 290) for x in d.T.numpy()]
    assert t.tolist() == pytest.approx(expected, rel=1e-10)
    factor = np.sqrt((290 + 1 - 10 + 20 / 290) / 290)
    assert small.tolist() == pytest.approx([factor * x for x in expected], rel=1e-10)
    dependent = d.cumsum(0)
    expected = [reference_t(x, 8) for x in dependent.T.numpy()]
    assert diebold_mariano(dependent, overlap=5).statistic.tolist() == pytest.approx(expected, rel=1e-10)


def test_the_panels_variance_allows_for_assets_that_move_together():
    generator = torch.Generator().manual_seed(0)
    together = torch.randn(400, 300, 1, generator=generator, dtype=torch.float64)
    rejected = 0
    for n in range(300):
        d = together[:, n] + torch.randn(400, 20, generator=generator, dtype=torch.float64)
        rejected += diebold_mariano(d, panel=True, lags=0).p_value.item() < 0.05
    assert rejected / 300 < 0.09
    assert diebold_mariano(d + 0.3, panel=True).p_value < 0.01


def test_a_constant_difference_gives_no_verdict():
    assert diebold_mariano(torch.zeros(50, 2)).p_value.isnan().all()
    assert diebold_mariano(torch.randn(50, 2), torch.zeros(50, 2, dtype=torch.bool)).p_value.isnan().all()


def reference_confidence_set(losses: np.ndarray, weights: np.ndarray, method: str) -> np.ndarray:
    """Hansen, Lunde and Nason's algorithm, one model at a time."""
    t, m = losses.shape
    mean, star = losses.mean(0), weights @ losses / t
    left, p_value, running = list(range(m)), np.ones(m), 0.0
    while len(left) > 1:
        if method == "range":
            best, simulated = (-np.inf, None), np.zeros(len(star))
            for i in left:
                for j in left:
                    if i != j:
                        noise = (star[:, i] - star[:, j]) - (mean[i] - mean[j])
                        error = np.sqrt((noise**2).mean())
                        best = max(best, ((mean[i] - mean[j]) / error, i))
                        simulated = np.maximum(simulated, np.abs(noise / error))
        else:
            best, simulated = (-np.inf, None), np.full(len(star), -np.inf)
            for i in left:
                noise = (star[:, i] - star[:, left].mean(1)) - (mean[i] - mean[left].mean())
                error = np.sqrt((noise**2).mean())
                best = max(best, ((mean[i] - mean[left].mean()) / error, i))
                simulated = np.maximum(simulated, noise / error)
        running = max(running, (simulated >= best[0]).mean())
        p_value[best[1]] = running
        left.remove(best[1])
    return p_value


@pytest.mark.parametrize("method", ["range", "max"])
def test_the_confidence_set_is_the_algorithm_on_each_series(method):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, 3, generator=generator, dtype=torch.float64)
    x = x + torch.randn(200, 1, 3, generator=generator, dtype=torch.float64)
    x[:, 0] += 0.2
    x[:, 1] += 0.1
    test = model_confidence_set(x, method=method, draws=500, generator=torch.Generator().manual_seed(5))
    weights = resampled(200, 500, 10, torch.Generator().manual_seed(5)).numpy()
    for n in range(3):
        expected = reference_confidence_set(x[..., n].numpy(), weights, method)
        assert test.p_value[:, n].tolist() == pytest.approx(expected, abs=1e-12)
    assert (weights.sum(1) == 200).all()
    assert test.mean_loss.numpy() == pytest.approx(x.mean(0).numpy())


def test_the_confidence_set_agrees_with_arch():
    bootstrap = pytest.importorskip("arch.bootstrap")
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 0] += 0.2
    peer = bootstrap.MCS(x.numpy(), size=0.1, reps=4000, block_size=10, method="R", bootstrap="stationary", seed=1)
    peer.compute()
    expected = peer.pvalues["Pvalue"].sort_index().to_numpy()
    ours = model_confidence_set(x, draws=4000, generator=torch.Generator().manual_seed(1)).p_value.numpy()
    assert ours == pytest.approx(expected, abs=0.04)


def test_the_confidence_set_keeps_equal_models_and_drops_bad_ones():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, 150, generator=generator)
    x[:, 3] += 0.5
    x[:, 1] = x[:, 0]
    test = model_confidence_set(x, holes((300, 150)), draws=500, generator=generator)
    assert (~test.included()[3]).double().mean() > 0.95
    assert (~test.included()[:3]).any(0).double().mean() < 0.2
    assert torch.equal(test.included()[0], test.included()[1])
    nothing = model_confidence_set(x, torch.zeros(300, 150, dtype=torch.bool), draws=20)
    assert nothing.p_value.isnan().all()


# Benjamini and Hochberg (1995), section 3: 15 hypotheses of which their procedure at 5 % rejects four.
PUBLISHED = (
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0),
)


def test_benjamini_and_hochbergs_example():
    p = torch.tensor(PUBLISHED, dtype=torch.float64)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    adjusted = benjamini_hochberg(p[order])
    assert sorted(p[order][adjusted <= 0.05].tolist()) == pytest.approx(PUBLISHED[:4])
    assert adjusted.numpy() == pytest.approx(stats.false_discovery_control(p[order].numpy()))
    dependent = benjamini_hochberg(p, dependent=True)
    assert dependent.numpy() == pytest.approx(stats.false_discovery_control(p.numpy(), method="by"))


def test_any_shape_and_holes():
    p = torch.rand(6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p[2, 3] = torch.nan
    adjusted = benjamini_hochberg(p)
    expected = stats.false_discovery_control(p[~p.isnan()].numpy())
    assert adjusted[~p.isnan()].numpy() == pytest.approx(expected)
    assert adjusted[2, 3].isnan()
    assert benjamini_hochberg(torch.full((3,), torch.nan)).isnan().all()
    with pytest.raises(ValueError, match="lie in"):
        benjamini_hochberg(torch.tensor([0.5, 1.5]))


def test_false_discoveries_stay_below_the_rate():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5000, generator=generator, dtype=torch.float64)
    z[:500] += 4
    rejected = benjamini_hochberg(torch.special.erfc(z.abs() / 2**0.5)) < 0.1
    assert rejected[:500].double().mean() > 0.8
    assert rejected[500:].sum() / rejected.sum() < 0.13
    assert share_rejected(benjamini_hochberg(torch.rand(5000, generator=generator))) < 0.001
