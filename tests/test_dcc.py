"""The benchmarks' dynamic conditional correlations: the recursion, the estimates, the scenarios."""

import pytest
import torch

from benchmarks.dcc import DCC, correlations, pair_likelihood, recoloured, whitened

S = torch.tensor([[1.0, 0.6, 0.2], [0.6, 1.0, 0.1], [0.2, 0.1, 1.0]], dtype=torch.float64)


def simulated(dcc: DCC, sessions: int) -> torch.Tensor:
    Q, rows = dcc.target, []
    for _ in range(sessions):
        size = torch.diagonal(Q).sqrt()
        z = torch.linalg.cholesky(Q / (size[:, None] * size)) @ torch.randn(len(Q), dtype=torch.float64)
        rows.append(z)
        Q = (1 - dcc.a - dcc.b) * dcc.target + dcc.a * torch.outer(z, z) + dcc.b * Q
    return torch.stack(rows)


@pytest.mark.parametrize("T", [1, 7, 300])
def test_the_path_is_that_of_a_loop_and_knows_nothing_later(T):
    torch.manual_seed(0)
    z, dcc = torch.randn(T, 3, dtype=torch.float64), DCC(S, 0.04, 0.93)
    z[T // 2, 1] = torch.nan
    Q, expected = S, [S]
    for t in range(T):
        product = torch.outer(z[t], z[t])
        Q = 0.03 * S + 0.04 * torch.where(product.isfinite(), product, S) + 0.93 * Q
        size = torch.diagonal(Q).sqrt()
        expected.append(Q / (size[:, None] * size))
    path = dcc.path(z)
    torch.testing.assert_close(path, torch.stack(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dcc.path(z[: T // 2]), path[: T // 2 + 1], rtol=1e-10, atol=1e-12)


def test_the_likelihood_is_that_of_pairs():
    torch.manual_seed(1)
    z, dcc = torch.randn(40, 3, dtype=torch.float64), DCC(S, 0.05, 0.9)
    R, total = dcc.path(z), 0.0
    for t in range(40):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            pair = torch.distributions.MultivariateNormal(torch.zeros(2).double(), R[t][[i, j]][:, [i, j]])
            alone = torch.distributions.Normal(torch.zeros(2).double(), 1.0).log_prob(z[t, [i, j]]).sum()
            total += float(pair.log_prob(z[t, [i, j]]) - alone)
    assert pair_likelihood(dcc, z) == pytest.approx(total / 120, rel=1e-9)


def test_parameters_are_found_again():
    torch.manual_seed(2)
    z = simulated(DCC(S, 0.06, 0.9), 4000)
    found = DCC.fitted(z)
    assert found.a == pytest.approx(0.06, abs=0.015)
    assert found.b == pytest.approx(0.9, abs=0.04)
    torch.testing.assert_close(found.target, S, atol=0.08, rtol=0)


def test_recoloured_residuals_have_the_correlations_of_the_night():
    """And those of a night like the day are as they were."""
    torch.manual_seed(3)
    dcc = DCC(S, 0.08, 0.9)
    z = simulated(dcc, 6000)
    path = dcc.path(z)
    white = whitened(z, path[:-1])
    for night in (torch.eye(3).double(), S):
        torch.testing.assert_close(correlations(recoloured(white, night)), night, atol=0.04, rtol=0)
    for t in range(5):
        torch.testing.assert_close(recoloured(white[t : t + 1], path[t]), z[t : t + 1])
