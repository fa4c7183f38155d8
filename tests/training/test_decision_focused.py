"""Decision-focused training: gradients reach the forecast, masks hold, and decisions get better."""

import dataclasses

import pytest
import torch

from qtorch.data import PanelWindowSource
from qtorch.distributions import GaussianCopula, JointDistribution, StudentT
from qtorch.heads import CopulaHead, JointHead, SkewedStudentT
from qtorch.portfolio import Constraints, MeanVariance, ScenarioProgram, TailRisk, portfolio_returns
from qtorch.training import CRPS, DecisionFocused, Forecaster, LogScore, fit
from tests.training.runs import SPEC, Across, small_data, small_panel


def make(objective=None) -> Forecaster:
    torch.manual_seed(0)
    head = JointHead(SkewedStudentT(8, SPEC.horizons), CopulaHead(8, 1))
    return Forecaster(Across(len(SPEC.features)), head, SPEC, objective=objective)


def program() -> ScenarioProgram:
    return ScenarioProgram(MeanVariance(1.0, mean=0.0), Constraints(lower=-1.0, upper=1.0))


def law(scale: torch.Tensor, loadings: torch.Tensor, B: int) -> JointDistribution:
    marginals = StudentT(torch.tensor(8.0), torch.zeros(B, 1, len(scale)), scale)
    return JointDistribution(marginals, GaussianCopula(loadings, validate_args=False))


def test_twenty_steps_mend_what_a_wrong_correlation_does_to_decisions():
    """The first two assets hedge each other's common shock; a law without dependence does not know it."""
    generator = torch.Generator().manual_seed(3)
    common, own = (torch.randn(200, n, generator=generator) for n in (1, 3))
    outcomes = (0.01 * (0.95 * common * torch.tensor([1.0, -1.0, 1.0]) + 0.3 * own)).unsqueeze(1)
    mask = torch.ones_like(outcomes, dtype=torch.bool)
    objective = DecisionFocused(program(), draws=64)
    free = torch.full((3, 1), 0.05, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.1)
    lost = []
    for _ in range(20):
        joint = law(torch.full((3,), 0.01), free / torch.sqrt(1 + free**2), 1)
        weights = objective.weights(joint, mask[:1])
        earned = (weights * outcomes).sum(-1)
        loss = objective.program.utility(earned[:, 0]) * 1e4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lost.append(loss.item())
    # In hindsight, of all weights: 64 draws of a law come near it, and the law without dependence was far.
    best = objective.program(outcomes, mask[:1, 0])
    least = objective.program.utility(portfolio_returns(best.expand(200, 3), outcomes[:, 0])).item() * 1e4
    assert lost[0] > 1.5 * least
    assert least < lost[-1] < least + 0.15 * (lost[0] - least)


def test_masked_assets_have_no_gradient_and_what_stands_there_no_matter():
    scale = torch.tensor([0.01, 0.02, 0.015, 0.01]).requires_grad_()
    mask = torch.ones(5, 1, 4, dtype=torch.bool)
    mask[..., 2] = False
    mask[3] = False
    objective = DecisionFocused(ScenarioProgram(TailRisk(0.8), smoothing=1e-3), draws=32)
    results = []
    for hole in (0.0, torch.nan):
        outcomes = torch.where(mask, 0.01 * torch.ones(5, 1, 4).cumsum(0).sin(), hole)
        losses = objective(law(scale, torch.full((4, 1), 0.5), 5), outcomes, mask)
        assert losses.shape == (5, 1)
        assert losses[3] == 0
        results.append((losses.detach(), *torch.autograd.grad(losses.sum(), scale)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert results[0][1][2] == 0
    assert results[0][1][[0, 1, 3]].all()


def test_it_is_an_objective_of_a_forecaster():
    panel = small_panel()
    objective = DecisionFocused(program(), draws=16)
    model = make(LogScore() + 100.0 * objective)
    before = [value.clone() for value in model.parameters()]
    data = small_data(panel, "panel", batches_per_epoch=2, every_position=False)
    fit(model, data, max_epochs=1, monitor="val_decision")
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(source.entries()[100:106])
    losses, _ = model.losses(window)
    torch.testing.assert_close(losses["loss"], losses["log_score"] + 100.0 * losses["decision"])
    torch.testing.assert_close(losses["decision"], objective(model(window), window.target, window.target_mask))
    holes = dataclasses.replace(window, target=torch.where(window.target_mask, window.target, torch.nan))
    model.zero_grad()
    model.mean_loss(holes).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert any(grad.any() for grad in grads)


class CRPSOfReturns(CRPS):
    name = "crps_of_returns"
    in_returns = True


@pytest.mark.parametrize("training", [True, False])
def test_an_objective_in_returns_sees_returns(training):
    panel = small_panel()
    source = PanelWindowSource(panel, SPEC)
    window = source.gather(source.entries()[100:106])
    model = Forecaster(Across(len(SPEC.features)), SkewedStudentT(8, SPEC.horizons), SPEC).train(training)
    losses, _ = model.losses(window, CRPS() + CRPSOfReturns())
    torch.testing.assert_close(losses["crps_of_returns"], window.scale.unsqueeze(-2) * losses["crps"])


def test_laws_without_joint_scenarios_and_limits_of_turnover_are_refused():
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="JointHead"):
        DecisionFocused(program())(StudentT(4.0, torch.zeros(2, 3), 1.0), torch.zeros(2, 3), mask)
    with pytest.raises(ValueError, match="turnover=None"):
        DecisionFocused(ScenarioProgram(TailRisk(), Constraints(turnover=0.5)))
