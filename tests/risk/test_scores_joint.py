import numpy as np
import pytest
import torch

from qtorch.distributions import Empirical
from qtorch.risk import crps, energy_score, variogram_score


def sample(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def energy_by_loops(x: np.ndarray, y: np.ndarray, w: np.ndarray, fair: bool) -> float:
    w = w / w.sum()
    first = sum(w[s] * np.linalg.norm(x[s] - y) for s in range(len(x)))
    pairs = sum(w[s] * w[r] * np.linalg.norm(x[s] - x[r]) for s in range(len(x)) for r in range(len(x)))
    return first - pairs / 2 / (1 - (w**2).sum() if fair else 1)


def variogram_by_loops(x: np.ndarray, y: np.ndarray, w: np.ndarray, pair: np.ndarray, p: float) -> float:
    w, N = w / w.sum(), len(y)
    terms = [
        pair[i, j] * (abs(y[i] - y[j]) ** p - (w * abs(x[:, i] - x[:, j]) ** p).sum()) ** 2
        for i in range(N)
        for j in range(N)
    ]
    return sum(terms)


@pytest.mark.parametrize("fair", [False, True])
def test_the_energy_score_is_the_loop_over_pairs(fair):
    x, y, w = sample(30, 2, 3), sample(2, 3), torch.rand(30, dtype=torch.float64)
    score = energy_score(x, y, w, fair=fair)
    for b in range(2):
        assert score[b].item() == pytest.approx(energy_by_loops(x[:, b].numpy(), y[b].numpy(), w.numpy(), fair))


def test_the_variogram_score_is_the_loop_over_pairs():
    x, y, w, pair = sample(30, 2, 4), sample(2, 4), torch.rand(30, dtype=torch.float64), torch.rand(4, 4).double()
    score = variogram_score(x, y, 0.7, pair, w)
    for b in range(2):
        expected = variogram_by_loops(x[:, b].numpy(), y[b].numpy(), w.numpy(), pair.numpy(), 0.7)
        assert score[b].item() == pytest.approx(expected)
    ones = variogram_by_loops(x[:, 0].numpy(), y[0].numpy(), np.ones(30), np.ones((4, 4)), 0.5)
    assert variogram_score(x, y)[0].item() == pytest.approx(ones)


def test_for_one_asset_the_energy_score_is_the_crps_by_either_way():
    x, y = sample(50, 4, 1), sample(4, 1)
    score = energy_score(x, y)
    torch.testing.assert_close(score, crps(Empirical(x[..., 0].T), y[:, 0]))
    mask = torch.tensor([[True, False]] * 4)
    beside = energy_score(torch.cat([x, sample(50, 4, 1)], -1), torch.cat([y, y], -1), mask=mask)
    torch.testing.assert_close(beside, score)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_missing_assets_are_left_out(score):
    x, y = sample(25, 3, 5), sample(3, 5)
    holed = y.clone()
    holed[0, 1] = torch.nan
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, [0, 4]] = False
    mask[2, :] = False
    got = score(x, holed, mask=mask)
    torch.testing.assert_close(got[0], score(x[:, 0, [0, 2, 3, 4]], y[0, [0, 2, 3, 4]]))
    torch.testing.assert_close(got[1], score(x[:, 1, 1:4], y[1, 1:4]))
    assert got[2].isnan()


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_pieces_and_the_order_of_assets_change_nothing(score, monkeypatch):
    x, y = sample(25, 3, 5), sample(3, 5)
    whole, order = score(x, y), torch.randperm(5)
    torch.testing.assert_close(score(x[..., order], y[..., order]), whole)
    monkeypatch.setattr("qtorch.risk.scores.joint._PIECE", 100)
    torch.testing.assert_close(score(x, y), whole)


@pytest.mark.parametrize("score", [energy_score, variogram_score])
def test_joint_scores_are_differentiable_losses(score):
    x, y = sample(6, 2, 3).requires_grad_(), sample(2, 3)
    y[0, 0] = torch.nan
    assert torch.autograd.gradcheck(lambda x: score(x, y), (x,))
    same = torch.ones(4, 1, 3, dtype=torch.float64, requires_grad=True)
    score(same, torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    assert same.grad.isfinite().all()


def test_a_fair_score_does_not_depend_on_how_many_scenarios():
    outcomes = sample(20_000, 2)
    few, many = (energy_score(sample(S, 20_000, 2), outcomes, fair=True).mean().item() for S in (3, 30))
    assert few == pytest.approx(many, abs=0.02)
    assert energy_score(sample(3, 20_000, 2), outcomes).mean().item() > many + 0.1


def test_the_variogram_score_sees_wrong_dependence():
    generator = torch.Generator().manual_seed(0)

    def draw(rho, *shape):
        z = torch.randn(*shape, 2, generator=generator, dtype=torch.float64)
        return torch.stack([z[..., 0], rho * z[..., 0] + (1 - rho**2) ** 0.5 * z[..., 1]], -1)

    y = draw(0.8, 4000)
    scores = {rho: variogram_score(draw(rho, 200, 4000), y).mean().item() for rho in (0.0, 0.8, 0.95)}
    assert scores[0.8] < min(scores[0.0], scores[0.95])


def test_bad_arguments_are_refused():
    x, y = sample(5, 2), sample(2)
    with pytest.raises(ValueError, match="Weights"):
        energy_score(x, y, -torch.ones(5))
    with pytest.raises(ValueError, match="give 2 or more"):
        energy_score(x[:1], y, fair=True)
    with pytest.raises(ValueError, match="order=-1"):
        variogram_score(x, y, -1.0)
