"""The cost of a joint log density of many assets beside that of one matrix product, and the errors of scenarios.

Times, on one thread, the masked log density of a Student-t copula for 5,000 assets on 64 dates with a tenth of them
missing, from normal scores (which marginals give) and from uniforms, forward and with its backward pass, beside one
batched product of each date's factors with themselves, `[64, R, 5000] @ [64, 5000, R]`, in the same float64. Then the
root mean square error, over 32 repetitions, of an equal-weight portfolio's mean, value at risk and expected shortfall
from draws and from quasi-random scenarios of 20 assets, in per cent of the number (the mean's of the volatility).

Usage: python benchmarks/copula.py [--assets 5000] [--dates 64] [--factors 5 10 20 40]
"""

import argparse
import time
from collections.abc import Callable

import torch

from qtorch.distributions import JointDistribution, SkewedStudentT, StudentTCopula
from qtorch.distributions.cumulative import ndtr
from qtorch.risk import estimate_expected_shortfall, estimate_value_at_risk, quasi_random_scenarios


def milliseconds(function: Callable[[], object], repeats: int = 7) -> float:
    """The least of some runs, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main() -> None:
    settings = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_argument("--assets", type=int, default=5000)
    settings.add_argument("--dates", type=int, default=64)
    settings.add_argument("--factors", type=int, nargs="+", default=[5, 10, 20, 40])
    args = settings.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    densities(args.assets, args.dates, args.factors)
    for count in (512, 2048, 8192):
        scenario_errors(count)


def densities(N: int, T: int, factors: list[int]) -> None:
    """Prints a line for each number of factors."""
    for R in factors:
        loadings = 0.7 * torch.randn(N, R, dtype=torch.float64) / (2 * R) ** 0.5
        loadings = loadings / (1 + loadings.square().sum(-1, keepdim=True)).sqrt()
        own = loadings.expand(T, N, R).clone()
        copula = StudentTCopula(4.0, loadings)
        scores, mask = copula.expand(torch.Size([T])).rsample_scores(), torch.rand(T, N) > 0.1
        uniforms = ndtr(scores)

        def backward(L: torch.Tensor = loadings, s: torch.Tensor = scores, m: torch.Tensor = mask) -> None:
            leaf = L.clone().requires_grad_()
            StudentTCopula(4.0, leaf, validate_args=False).log_prob_of_scores(s, m).sum().backward()

        product = milliseconds(lambda F=own: F.mT @ F)
        found = {
            "from scores": milliseconds(lambda c=copula, s=scores, m=mask: c.log_prob_of_scores(s, m)),
            "from uniforms": milliseconds(lambda c=copula, u=uniforms, m=mask: c.log_prob(u, m)),
            "from scores, with gradient": milliseconds(backward),
        }
        line = ", ".join(f"{name} {value:.0f} ms ({value / product:.2f} x)" for name, value in found.items())
        print(f"{N} assets x {T} dates, R = {R}: product {product:.0f} ms; {line}", flush=True)


def scenario_errors(count: int, repetitions: int = 32) -> None:
    """Prints the errors of one number of scenarios."""
    N = 20
    loadings = torch.stack((torch.linspace(0.5, 0.8, N), torch.linspace(-0.4, 0.4, N)), dim=-1).double()
    marginals = SkewedStudentT(torch.full((N,), 4.0).double(), 0.0, 0.01, 0.95)
    joint = JointDistribution(marginals, StudentTCopula(torch.tensor(5.0).double(), loadings))

    def measures(scenarios: torch.Tensor) -> torch.Tensor:
        profit = scenarios.mean(-1)
        found = (estimate_value_at_risk(profit, 0.99).value, estimate_expected_shortfall(profit, 0.975).value)
        return torch.stack((profit.mean(), *found))

    many = [quasi_random_scenarios(joint, 1 << 15, randomisations=1, seed=1000 + k)[0] for k in range(8)]
    truth = torch.stack([measures(part) for part in many]).mean(0)
    size = torch.stack((many[0].mean(-1).std(), *truth[1:]))
    errors = []
    for scenarios in (
        joint.sample((repetitions, count)),
        quasi_random_scenarios(joint, count, randomisations=repetitions),
    ):
        found = torch.stack([measures(part) for part in scenarios])
        errors.append(100 * (found - truth).square().mean(0).sqrt() / size)
    rows = zip(("mean", "VaR 99 %", "ES 97.5 %"), *errors, strict=True)
    parts = (f"{name} {draws:.2f} % by draws, {quasi:.2f} % quasi-random" for name, draws, quasi in rows)
    print(f"{count} scenarios: {'; '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
