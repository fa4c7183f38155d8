"""The likelihood of directions against densities of elliptical laws, and who is left out."""

import torch

from qtorch.distributions import MultivariateStudentT
from qtorch.training import ShapeLikelihood


def covariance(R: int, N: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(R, 3 * N, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.mT @ x / (3 * N)


def loss(sigma: torch.Tensor, r: torch.Tensor, universe: torch.Tensor | None = None) -> torch.Tensor:
    universe = torch.ones(r.shape[0], r.shape[-1], dtype=torch.bool) if universe is None else universe
    return ShapeLikelihood()(sigma.float(), universe, r.float(), r.isfinite())


def test_it_is_the_density_of_directions():
    # In two dimensions it must integrate to one over the circle, whose density without a shape is 1 / (2 pi).
    angle = torch.linspace(0, 2 * torch.pi, 4001, dtype=torch.float64)[:-1]
    r = torch.stack((angle.cos(), angle.sin()), -1)
    per_asset = torch.stack([loss(covariance(1, 2), each[None, None]) for each in r])
    assert abs(torch.exp(-2 * per_asset).mean().item() - 1) < 1e-4


def test_the_true_shape_is_best_and_size_does_not_count():
    true = covariance(1, 4)
    factor, own = torch.zeros(4, 1), torch.ones(4)
    t = MultivariateStudentT(3.0, torch.zeros(4), factor, own).sample((20_000,))
    r = (t.double() @ torch.linalg.cholesky(true[0]).mT)[None]
    best = loss(true, r)
    torch.testing.assert_close(loss(7 * true, r), best, atol=1e-5, rtol=0.0)
    storms = torch.where(torch.arange(20_000) % 3 == 0, 50.0, 0.1).unsqueeze(-1)
    torch.testing.assert_close(loss(true, r * storms), best, atol=1e-5, rtol=0.0)
    for other in (covariance(1, 4, seed=1), torch.eye(4, dtype=torch.float64)[None]):
        assert loss(other, r) > best + 0.005


def test_assets_outside_the_universe_and_sessions_with_holes_do_not_count():
    sigma, r = covariance(2, 5), torch.randn(2, 30, 5, dtype=torch.float64)
    universe = torch.ones(2, 5, dtype=torch.bool)
    universe[:, 2] = False
    kept = torch.tensor([0, 1, 3, 4])
    alone = torch.eye(5, dtype=torch.float64).repeat(2, 1, 1)
    alone[:, kept[:, None], kept] = sigma[:, kept[:, None], kept]
    expected = loss(sigma[:, kept[:, None], kept], r[..., kept])
    spoilt = r.clone()
    spoilt[:, :, 2] = torch.nan
    torch.testing.assert_close(loss(alone, spoilt, universe), expected)
    spoilt[0, 3, 0] = torch.nan
    without = torch.cat((r[0, :3], r[0, 4:], r[1]))[..., kept]
    both = torch.cat(
        (sigma[:1, kept[:, None], kept].expand(29, -1, -1), sigma[1:, kept[:, None], kept].expand(30, -1, -1))
    )
    torch.testing.assert_close(loss(alone, spoilt, universe), loss(both, without.unsqueeze(1)))


def test_gradients():
    r, universe = torch.randn(2, 6, 3), torch.ones(2, 3, dtype=torch.bool)
    sigma = covariance(2, 3).requires_grad_()
    objective = ShapeLikelihood()

    def of(s: torch.Tensor) -> torch.Tensor:
        return objective((s + s.mT) / 2, universe, r, torch.ones_like(r).bool())

    assert torch.autograd.gradcheck(of, sigma)
