import math

import pytest
import torch
from torch.distributions import Normal

from qtorch.distributions import SkewedStudentT, StudentT
from qtorch.risk.scores import crps, fz0, log_score, pinball
from qtorch.training import CRPS, FZ0, LogScore, Mix, Pinball

ALL = [LogScore(), CRPS(), Pinball((0.99, 0.9)), FZ0((0.99, 0.95)), LogScore() + 0.5 * FZ0()]
shapes = pytest.mark.parametrize("objective", ALL, ids=lambda objective: objective.name)


@pytest.fixture
def law():
    one = torch.ones(40, 2, dtype=torch.float64)
    return SkewedStudentT(5 * one, 0.02 * one, one, 0.9 * one)


def test_each_is_the_score_of_its_name(law):
    y = law.sample()
    mask = torch.rand(40, 2) < 0.7
    q = {level: law.icdf(torch.tensor(1 - level, dtype=torch.float64)) for level in (0.99, 0.95)}
    expected = {
        LogScore(): log_score(law, y),
        CRPS(): crps(law, y),
        Pinball((0.99, 0.95)): sum(pinball(y, -q[level], level) for level in q) / 2,
        FZ0((0.99,)): fz0(y, -q[0.99], -_tail(law, 0.01), 0.99),
    }
    for objective, values in expected.items():
        torch.testing.assert_close(objective(law, y, mask), torch.where(mask, values, 0.0))


def _tail(law, p):
    from qtorch.distributions import tail_mean

    return tail_mean(law, p)


@shapes
def test_what_is_masked_adds_nothing_to_values_or_gradients(objective):
    df = torch.full((6,), 5.0, requires_grad=True)
    scale = torch.ones(6, requires_grad=True)
    mask = torch.tensor([True, True, True, False, False, False])
    y = torch.tensor([0.1, -3.0, 2.0, torch.nan, 50.0, -1e30])
    loss = objective(SkewedStudentT(df, torch.zeros(6), scale, 0.9), y, mask)
    assert (loss[3:] == 0).all()
    loss.sum().backward()
    for gradient in (df.grad, scale.grad):
        assert (gradient[3:] == 0).all()
        assert gradient[:3].isfinite().all()
        assert gradient[:3].any()


@shapes
def test_a_forecast_that_is_nan_is_not_hidden(objective):
    law = SkewedStudentT(torch.tensor([5.0, 5.0]), 0.0, torch.tensor([1.0, torch.nan]), 1.0, validate_args=False)
    loss = objective(law, torch.zeros(2), torch.ones(2, dtype=torch.bool))
    assert loss.isfinite().tolist() == [True, False]


@shapes
def test_the_true_scale_minimises_the_mean(objective):
    y = StudentT(5.0, 0.0, 1.0).expand((20_000,)).sample().double()
    mask = torch.ones_like(y, dtype=torch.bool)
    scales = torch.tensor([0.6, 0.8, 1.0, 1.25, 1.6], dtype=torch.float64)
    means = [objective(StudentT(5.0, 0.0, scale).expand(y.shape), y, mask).mean() for scale in scales]
    assert int(torch.stack(means).argmin()) == 2


def test_gradients_are_those_of_finite_differences():
    y = torch.tensor([-4.0, -1.0, 0.3, 2.0], dtype=torch.float64)
    mask = torch.ones_like(y, dtype=torch.bool)
    for objective in ALL:

        def mean(scale, objective=objective):
            return objective(StudentT(torch.full_like(y, 5.0), 0.0, scale.expand(4)), y, mask).mean()

        torch.autograd.gradcheck(mean, (torch.tensor(1.1, dtype=torch.float64, requires_grad=True),))


def test_objectives_add_up_with_weights(law):
    y = law.sample()
    mask = torch.ones_like(y, dtype=torch.bool)
    mix = LogScore() + 0.5 * FZ0((0.975,)) + 2.0 * (0.5 * CRPS())
    parts = LogScore()(law, y, mask) + 0.5 * FZ0((0.975,))(law, y, mask) + CRPS()(law, y, mask)
    torch.testing.assert_close(mix(law, y, mask), parts)
    assert mix == Mix([LogScore(), FZ0([0.975]), CRPS()], [1.0, 0.5, 1.0])
    assert [(weight, score.name) for weight, score in mix.terms] == [(1.0, "log_score"), (0.5, "fz0"), (1.0, "crps")]
    assert hash(mix) == hash(LogScore() + 0.5 * FZ0((0.975,)) + CRPS())


def test_the_log_score_of_a_normal_is_its_closed_form():
    y = torch.tensor([0.0, 1.0])
    loss = LogScore()(Normal(torch.zeros(2), 1.0), y, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(loss, 0.5 * math.log(2 * math.pi) + y**2 / 2)


def test_what_makes_no_objective_is_named():
    with pytest.raises(ValueError, match="level=1.0"):
        FZ0((0.99, 1.0))
    with pytest.raises(ValueError, match="levels=.*at least one confidence"):
        Pinball(())
    with pytest.raises(ValueError, match="weights=.*give a positive number for each of the 1 objectives"):
        -1.0 * CRPS()
    with pytest.raises(ValueError, match="give each score once"):
        FZ0((0.99,)) + FZ0((0.95,))
