"""Backtests of a panel of 5,000 assets and 500 sessions, beside a loop over single series in numpy and scipy.

The loop does what a user without a panel library does: each asset's holes are dropped, then each test is called on the
vectors that are left. It runs on `--loop` assets and its time is scaled to all of them. The largest difference of the
statistics of those assets is printed; p-values that are simulated in both have other random numbers.

Usage: python benchmarks/backtests.py [--assets 5000] [--sessions 500] [--loop 100] [--level 0.975]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import optimize, stats

from qtorch.risk import backtests as bt

DRAWS = 1000


def panel(assets: int, sessions: int, level: float) -> dict[str, torch.Tensor]:
    """Student-t returns with a wandering volatility, right forecasts of them, and 5 % of the days missing."""
    rng = np.random.default_rng(0)
    log_scale = np.zeros((sessions, assets))
    for t in range(1, sessions):
        log_scale[t] = 0.97 * log_scale[t - 1] + 0.15 * rng.standard_normal(assets)
    scale, df = 0.01 * np.exp(log_scale), 5
    z = rng.standard_t(df, (sessions, assets))
    var = -stats.t.ppf(1 - level, df)
    es = stats.t.pdf(var, df) / (1 - level) * (df + var**2) / (df - 1)
    returns = np.where(rng.random(z.shape) < 0.05, np.nan, scale * z)
    arrays = {
        "y": returns,
        "var": var * scale,
        "es": es * scale,
        "u": np.where(np.isnan(returns), np.nan, stats.t.cdf(z, df)),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def log_likelihood(x: int, n: int, p: float) -> float:
    return (x * np.log(p) if x else 0.0) + ((n - x) * np.log1p(-p) if n - x else 0.0)


def kupiec(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    hit = y <= -var
    n, x = len(hit), int(hit.sum())
    statistic = 2 * (log_likelihood(x, n, x / n) - log_likelihood(x, n, p))
    return statistic, stats.chi2.sf(statistic, 1)


def christoffersen(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    hit = y <= -var
    before, now = hit[:-1], hit[1:]
    n1, n11, n01 = int(before.sum()), int((before & now).sum()), int((~before & now).sum())
    n0 = len(before) - n1
    chain = log_likelihood(n01, n0, n01 / n0) + (log_likelihood(n11, n1, n11 / n1) if n1 else 0.0)
    independence = max(0.0, 2 * (chain - log_likelihood(n01 + n11, n0 + n1, (n01 + n11) / (n0 + n1))))
    statistic = independence + kupiec(y, var, es, u, p)[0]
    return statistic, stats.chi2.sf(statistic, 2)


def dynamic_quantile(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    h = (y <= -var) - p
    x = np.column_stack([np.ones(len(h) - 4), *(h[4 - k : len(h) - k] for k in range(1, 5)), var[4:]])
    b = np.linalg.lstsq(x, h[4:], rcond=None)[0]
    statistic = b @ (x.T @ x) @ b / (p * (1 - p))
    return statistic, stats.chi2.sf(statistic, x.shape[1])


def duration(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    hit = y <= -var
    at = np.flatnonzero(hit) + 1
    if len(at) < 2:
        return np.nan, np.nan
    times, known = np.diff(at).astype(float), len(at) - 1
    logs = np.log(times).sum()
    times = np.concatenate([times, [at[0]] if at[0] > 1 else [], [len(hit) - at[-1]] if at[-1] < len(hit) else []])

    def profile(b: float) -> float:
        return -(known * np.log(b) - known * np.log((times**b).sum()) + (b - 1) * logs)

    best = optimize.minimize_scalar(profile, bounds=(0.01, 30), method="bounded", options={"xatol": 1e-9})
    statistic = max(0.0, 2 * (profile(1.0) - best.fun))
    return statistic, stats.chi2.sf(statistic, 1)


def acerbi_szekely(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    hit = y <= -var
    statistic = (y * hit / es).sum() / (len(y) * p) + 1
    rng = np.random.default_rng(0)
    mass = rng.random((DRAWS, len(y)))
    drawn = mass < p
    excess = 0.8 / 0.2 * ((np.where(drawn, mass, p) / p) ** -0.2 - 1)
    loss = drawn * (var + (es - var) * excess)
    simulated = 1 - (loss / es).sum(1) / (len(y) * p)
    return statistic, (1 + (simulated <= statistic).sum()) / (1 + DRAWS)


def mcneil_frey(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    r = ((-y - es) / es)[y <= -var]
    if len(r) < 2:
        return np.nan, np.nan
    t = r.mean() / r.std(ddof=1) * np.sqrt(len(r))
    sample = np.random.default_rng(0).choice(r - r.mean(), (DRAWS, len(r)))
    with np.errstate(divide="ignore", invalid="ignore"):
        star = sample.mean(1) / sample.std(1, ddof=1) * np.sqrt(len(r))
    return t, (1 + (star >= t).sum()) / (1 + DRAWS)


def nolde_ziegel(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    hit = y <= -var
    v = np.column_stack([hit - p, hit * (-y - var) / p - (es - var)])
    statistic = len(v) * v.mean(0) @ np.linalg.solve(v.T @ v / len(v), v.mean(0)) if hit.any() else np.nan
    return statistic, stats.chi2.sf(statistic, 2)


def du_escanciano(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    h = np.where(u <= p, 1 - u / p, 0)
    statistic = np.sqrt(len(h)) * (h.mean() - p / 2) / np.sqrt(p * (1 / 3 - p / 4))
    return statistic, 2 * stats.norm.sf(abs(statistic))


def berkowitz(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    z = stats.norm.ppf(u)
    x = np.column_stack([np.ones(len(z) - 1), z[:-1]])
    residual = z[1:] - x @ np.linalg.lstsq(x, z[1:], rcond=None)[0]
    statistic = 2 * (stats.norm.logpdf(residual, scale=residual.std()).sum() - stats.norm.logpdf(z[1:]).sum())
    return statistic, stats.chi2.sf(statistic, 3)


def uniformity(y: np.ndarray, var: np.ndarray, es: np.ndarray, u: np.ndarray, p: float) -> tuple[float, float]:
    test = stats.kstest(u, "uniform")
    return test.statistic, test.pvalue


def pairs(data: dict[str, torch.Tensor], level: float) -> dict[str, tuple[Callable, Callable]]:
    """By name, the test of the panel and that of one series."""
    y, var, es, u = data["y"], data["var"], data["es"], data["u"]
    there = y.isfinite()

    def hit() -> torch.Tensor:
        return bt.exceedances(y, var)

    return {
        "Kupiec": (lambda: bt.kupiec(hit(), level, there), kupiec),
        "Christoffersen": (lambda: bt.christoffersen(hit(), level, there).conditional_coverage, christoffersen),
        "duration, chi-squared": (lambda: bt.duration(hit(), level, there, draws=0), duration),
        "dynamic quantile": (lambda: bt.dynamic_quantile(y, var, level), dynamic_quantile),
        "Acerbi-Szekely Z2": (lambda: bt.acerbi_szekely(y, var, es, level, draws=DRAWS).z2, acerbi_szekely),
        "McNeil-Frey": (lambda: bt.mcneil_frey(y, var, es, level, draws=DRAWS), mcneil_frey),
        "Nolde-Ziegel": (lambda: bt.nolde_ziegel(y, var, es, level, tail_index=None), nolde_ziegel),
        "Du-Escanciano": (lambda: bt.du_escanciano(u, level, draws=0).unconditional, du_escanciano),
        "Berkowitz": (lambda: bt.berkowitz(u), berkowitz),
        "Kolmogorov-Smirnov": (lambda: bt.pit_uniformity(u).kolmogorov_smirnov, uniformity),
    }


def only_here(data: dict[str, torch.Tensor], level: float) -> dict[str, Callable]:
    """Tests that are timed without a loop beside them."""
    y, var, es, u = data["y"], data["var"], data["es"], data["u"]
    there = y.isfinite()
    return {
        "duration, simulated": lambda: bt.duration(bt.exceedances(y, var), level, there),
        "Du-Escanciano, simulated": lambda: bt.du_escanciano(u, level),
        "Berkowitz tail": lambda: bt.berkowitz(u, level=level),
        "ES regression": lambda: bt.es_regression(y, var, es, level),
        "ES traffic light": lambda: bt.shortfall_traffic_light(u, level),
        "Diebold-Mariano": lambda: bt.diebold_mariano(y),
        "confidence set, 5 models": lambda: bt.model_confidence_set(
            y.unsqueeze(1) ** 2 + 1e-5 * torch.randn(len(y), 5, y.shape[1])
        ),
        "Kupiec, ten-day overlap": lambda: bt.kupiec(bt.exceedances(y, var), level, there, overlap=10),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=int, default=5000)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--loop", type=int, default=100)
    parser.add_argument("--level", type=float, default=0.975)
    args = parser.parse_args()
    data = panel(args.assets, args.sessions, args.level)
    threads = torch.get_num_threads()
    print(f"{args.assets:,} assets x {args.sessions} sessions, {threads} threads; loop on {args.loop}, scaled")
    print(f"{'':<26}{'panel s':>9}{'loop s':>9}{'ratio':>8}{'statistic differs by':>23}")
    total, loop_total = 0.0, 0.0
    for name, (ours, single) in pairs(data, args.level).items():
        start = time.perf_counter()
        result = ours()
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        expected = []
        for n in range(args.loop):
            arrays = [data[key][:, n].numpy() for key in ("y", "var", "es", "u")]
            there = np.isfinite(arrays[0])
            expected.append(single(*(array[there] for array in arrays), 1 - args.level)[0])
        loop = (time.perf_counter() - start) * args.assets / args.loop
        gap = np.nanmax(np.abs(result.statistic[: args.loop].numpy() - np.array(expected)))
        print(f"{name:<26}{seconds:>9.2f}{loop:>9.1f}{loop / seconds:>8.0f}{gap:>23.1e}")
        total, loop_total = total + seconds, loop_total + loop
    print(f"{'together':<26}{total:>9.2f}{loop_total:>9.1f}{loop_total / total:>8.0f}")
    for name, ours in only_here(data, args.level).items():
        start = time.perf_counter()
        ours()
        print(f"{name:<26}{time.perf_counter() - start:>9.2f}")


if __name__ == "__main__":
    main()
