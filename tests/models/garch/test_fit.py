from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.models import Garch
from qtorch.models.garch.fit import variance_forecast

LAWS = ("normal", "student_t", "skewed_t")
GJR = Garch(o=1, errors="skewed_t")


@pytest.fixture(scope="module")
def stocks(sample) -> pd.DataFrame:
    """The last 2,000 returns of the sample's 20 stocks, in per cent."""
    closes = sample[sample["exchange"] == "XNYS"].pivot(index="date", columns="asset", values="close")
    return 100 * closes.loc[:, closes.notna().iloc[-1]].dropna().pct_change().iloc[-2000:]


def simulated(T: int, N: int, *, alpha=0.05, gamma=0.08, beta=0.88, mu=0.05, seed=0) -> torch.Tensor:
    """GJR-GARCH with normal errors and unconditional variance 1, `[T, N]`."""
    z = torch.randn(T + 300, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    variance, rows = torch.ones(N, dtype=torch.float64), []
    for shock in z:
        e = variance.sqrt() * shock
        rows.append(mu + e)
        variance = 1 - alpha - gamma / 2 - beta + (alpha + gamma * (e < 0)) * e**2 + beta * variance
    return torch.stack(rows[300:])


@pytest.mark.parametrize("o", [0, 1])
@pytest.mark.parametrize("errors", LAWS)
def test_estimates_are_those_of_arch(stocks, o, errors):
    """arch 8.0.0 with tol 1e-13, the best of its fits from its own start, its first result and near ours."""
    reference = pd.read_csv(Path(__file__).with_name("arch_8.csv")).query("o == @o and errors == @errors")
    reference = reference.set_index("asset").loc[list(stocks)]
    fit = Garch(o=o, errors=errors).estimate(stocks)
    assert bool(fit.converged.all())
    np.testing.assert_allclose(fit.log_likelihood, reference["log_likelihood"], rtol=0, atol=2e-5)
    # What arch finds by its default tolerance is never better, and once a lower one of two maxima.
    assert (fit.log_likelihood.numpy() > reference["default_log_likelihood"] - 2e-5).all()
    np.testing.assert_allclose(fit.parameters, reference[list(fit.names)], rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("errors", LAWS)
def test_estimates_and_variances_are_those_of_an_installed_arch(stocks, errors):
    arch = pytest.importorskip("arch")
    fit = Garch(o=1, errors=errors).estimate(stocks)
    dist = {"normal": "normal", "student_t": "t", "skewed_t": "skewt"}[errors]
    for n, asset in enumerate(stocks):
        y = stocks[asset].to_numpy()
        model = arch.arch_model(y, mean="Constant", vol="GARCH", p=1, o=1, q=1, dist=dist, rescale=False)
        theirs = model.fit(disp="off", show_warning=False)
        assert fit.log_likelihood[n].item() > theirs.loglikelihood - 1e-4
        ours = model.fix(fit.parameters[n].numpy())
        assert ours.loglikelihood == pytest.approx(fit.log_likelihood[n].item(), abs=1e-6)
        np.testing.assert_allclose(fit.volatility[:, n], ours.conditional_volatility, rtol=1e-8)
        ahead = ours.forecast(horizon=10, reindex=False).variance.to_numpy()[0]
        np.testing.assert_allclose(fit.variance_forecast(10)[:, n], ahead, rtol=1e-8)


def test_the_unit_of_the_returns_does_not_matter(stocks):
    few = stocks.iloc[-1000:, :4]
    per_cent, decimals = GJR.estimate(few), GJR.estimate(few / 100)
    unit = torch.tensor([100.0, 100.0**2, 1, 1, 1, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(per_cent.parameters, decimals.parameters * unit, rtol=2e-4, atol=1e-5)
    shift = 1000 * np.log(100)
    torch.testing.assert_close(per_cent.log_likelihood, decimals.log_likelihood - shift, rtol=0, atol=1e-5)


def test_holes_lengths_order_and_company_do_not_matter(stocks):
    values = torch.tensor(stocks.iloc[-600:, :4].to_numpy())
    alone = [GJR.estimate(values[start:, n : n + 1]) for n, start in enumerate((0, 100, 200, 250))]
    holes = torch.full((700, 4), torch.nan, dtype=torch.float64)
    for n, start in enumerate((0, 100, 200, 250)):
        place = torch.randperm(700)[: 600 - start].sort().values
        holes[place, n] = values[start:, n]
    together = GJR.estimate(holes)
    order = torch.tensor([2, 0, 3, 1])
    turned = GJR.estimate(holes[:, order])
    for n, fit in enumerate(alone):
        assert together.log_likelihood[n].item() == pytest.approx(fit.log_likelihood.item(), abs=1e-6)
        torch.testing.assert_close(together.parameters[n], fit.parameters[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(turned.parameters, together.parameters[order], rtol=1e-5, atol=1e-6)


def test_simulated_parameters_are_recovered():
    fit = Garch(o=1).estimate(simulated(4000, 40))
    mean, spread = fit.parameters.mean(0), fit.parameters.std(0) / 40**0.5
    truth = torch.tensor([0.05, 0.03, 0.05, 0.08, 0.88], dtype=torch.float64)
    assert ((mean - truth).abs() < 4 * spread + 0.02 * truth).all()


def test_the_gradient_vanishes_at_the_estimates_within_the_bounds(stocks):
    from qtorch.models.garch.likelihood import Sample, scores

    fit = Garch(errors="student_t").estimate(stocks)
    sample = Sample.of(fit.returns, fit.count)
    by_session = scores(sample, fit.theta, "student_t")[[0, 1, 2, 4, 5]].flatten(1, 2)
    information = torch.einsum("ptn,qtn->npq", by_session, by_session)
    gradient = by_session.sum(1).T
    inside = (fit.theta.persistence < 0.9999) & (fit.theta.alpha > 1e-4) & (fit.theta.beta > 1e-4)
    gain = (gradient * torch.linalg.solve(information, gradient)).sum(-1) / 2
    assert inside.sum() > 10
    assert (gain[inside] < 1e-6).all()


def test_short_and_still_series_take_the_medians_of_the_others_and_their_own_variance(stocks):
    values = torch.tensor(stocks.iloc[-500:, :6].to_numpy())
    values[:-100, 3] = torch.nan
    values[:, 4] = 0.0
    values[:, 5] = torch.nan
    fit = GJR.estimate(values)
    assert fit.pooled.tolist() == [False] * 3 + [True] * 3
    assert fit.count.tolist() == [500] * 3 + [100, 500, 0]
    assert fit.variance_forecast(3).isfinite().all()
    persistence = fit.theta.persistence
    assert persistence[3].item() == pytest.approx(persistence[:3].median().item(), rel=1e-6)
    assert fit.theta.nu[3].item() == pytest.approx(fit.theta.nu[:3].median().item(), rel=1e-6)
    own = values[-100:, 3].var(correction=0).item()
    assert (fit.theta.omega / (1 - persistence))[3].item() == pytest.approx(own, rel=1e-6)
    assert torch.isfinite(fit.parameters).all()
    assert torch.isfinite(fit.log_likelihood[:4]).all()
    alone = GJR.estimate(values[:, 3:4])
    assert bool(alone.pooled.all())
    assert alone.theta.persistence.item() == pytest.approx(0.985, abs=1e-6)


def test_variance_forecasts_are_the_iterated_expectation(stocks):
    fit = GJR.estimate(stocks.iloc[-500:, :3])
    variance, found = fit.variance[-1], []
    for _ in range(12):
        found.append(variance)
        variance = fit.theta.omega + fit.theta.persistence * variance
    torch.testing.assert_close(fit.variance_forecast(12), torch.stack(found))
    at_two_dates = variance_forecast(fit.theta, fit.variance[-2:], 3)
    assert at_two_dates.shape == (3, 2, 3)
    torch.testing.assert_close(at_two_dates[:, 1], fit.variance_forecast(3))


def test_volatilities_know_nothing_of_their_own_return(stocks):
    values = torch.tensor(stocks.iloc[-400:, :2].to_numpy())
    fit = Garch(least=50, window=400).estimate(values)
    sigma = fit.variance.sqrt()
    e = fit.returns - fit.theta.mu
    expected = fit.theta.omega + fit.theta.alpha * e[-1] ** 2 + fit.theta.beta * sigma[-2] ** 2
    torch.testing.assert_close(sigma[-1] ** 2, expected)
    torch.testing.assert_close(fit.residuals, e / sigma[:-1])


def test_to_frame_names_what_it_holds(stocks):
    frame = Garch(errors="student_t").estimate(stocks.iloc[-300:, :3]).to_frame()
    assert list(frame.columns[:5]) == ["mu", "omega", "alpha", "beta", "nu"]
    assert list(frame.index) == list(stocks.columns[:3])
    assert (frame["returns"] == 300).all()
    assert frame["converged"].all()


@pytest.mark.gpu
def test_estimates_on_a_gpu_are_those_of_the_cpu():
    values = simulated(1000, 64)
    here, there = GJR.estimate(values), GJR.estimate(values.cuda())
    assert there.parameters.is_cuda
    torch.testing.assert_close(there.log_likelihood.cpu(), here.log_likelihood, rtol=0, atol=1e-5)
