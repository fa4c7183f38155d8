import pytest
import torch
from torch import nn

from qtorch import Forecaster, heads, models
from qtorch.training import Schedule
from qtorch.training.optimisation import adamw, parameter_groups
from tests.training.runs import SPEC


def test_the_rate_rises_to_its_peak_and_falls_to_its_end():
    schedule = Schedule(1.0, warm_up=0.1, final=0.05)
    rates = torch.tensor([schedule.factor(step, 200) for step in range(201)])
    torch.testing.assert_close(rates[:20], torch.arange(1, 21) / 20)
    assert rates[19:21].tolist() == [1.0, 1.0]
    assert (rates[20:].diff() < 0).all()
    assert rates[110] == pytest.approx(0.525)
    assert rates[200] == pytest.approx(0.05)
    assert Schedule(warm_up=0.0).factor(0, 10) == 1.0


def test_the_optimiser_follows_the_schedule():
    layer = nn.Linear(2, 2)
    optimizer, rate = adamw(layer, Schedule(0.4, warm_up=0.5), 0.1, 8)
    seen = []
    for _ in range(8):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rate.step()
    torch.testing.assert_close(seen[:5], [0.1, 0.2, 0.3, 0.4, 0.4])
    assert seen[5:] == sorted(seen[5:], reverse=True)


def test_only_matrices_decay():
    encoder = models.Transformer(len(SPEC.features), width=8, depth=1, heads=2)
    model = nn.ModuleDict({"m": encoder, "names": nn.Embedding(3, 4), "cell": nn.GRU(3, 4), "norm": nn.BatchNorm1d(2)})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(parameter)] for parameter in group} for group in parameter_groups(model))
    assert decayed | others == set(names.values())
    assert not decayed & others
    assert {"names.weight", "norm.weight", "m.norm.weight", "cell.bias_ih_l0", "m.embed.bias"} <= others
    assert {"m.embed.weight", "cell.weight_hh_l0"} <= decayed
    assert all(name.endswith("weight") or "weight_" in name for name in decayed)


def test_without_gradient_only_the_decayed_shrink():
    layer = nn.Linear(3, 3)
    before = {name: value.clone() for name, value in layer.named_parameters()}
    optimizer, _ = adamw(layer, Schedule(0.1, warm_up=0.0), 0.5, 10)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(layer.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before["bias"])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="warm_up=1.0: give a share of the steps"):
        Schedule(warm_up=1.0)
    with pytest.raises(ValueError, match="learning_rate=0"):
        Schedule(0.0)
    head = heads.SkewedStudentT(48, SPEC.horizons)
    with pytest.raises(ValueError, match="one of schedule and learning_rate"):
        Forecaster(models.Transformer(len(SPEC.features)), head, SPEC, learning_rate=0.1, schedule=Schedule())
