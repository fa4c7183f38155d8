from dataclasses import replace

import pytest
import torch

from qtorch.data import Features, WindowSpec
from qtorch.data.features import Drift, Label, MarketState, RangeRatio, Scaled, WithIndicator
from qtorch.data.window import Window
from qtorch.training.augmentation import HideInputs

RANGE = WithIndicator(RangeRatio())
LABELS = Label("sector", ("a", "b")), Label("country", ("x",))
SPEC = WindowSpec(8, (1,), Features((Scaled(), MarketState(), *LABELS, Drift(0.8), Drift(0.98), RANGE)))


def window(*shape: int) -> Window:
    axes = shape[:-1]
    return Window(
        torch.ones(shape),
        torch.ones(axes, dtype=torch.bool),
        torch.zeros(shape[0], 1),
        torch.ones(shape[0], 1, dtype=torch.bool),
        torch.ones(shape[0]),
        torch.zeros(shape[0], dtype=torch.int32),
        torch.zeros(shape[0], dtype=torch.int32),
    )


def test_features_of_a_class_are_one_group_each_label_another_and_some_are_kept():
    names = SPEC.features.names
    groups = [[names[i] for i in group] for group in HideInputs.by_kind(SPEC).groups]
    drift = [*Drift(0.8).names, *Drift(0.98).names]
    assert groups == [[*MarketState().names], ["sector=a", "sector=b"], ["country=x"], drift, [*RANGE.names]]
    kept = HideInputs.by_kind(SPEC, keep=(Label, Drift, RangeRatio)).groups
    assert [[names[i] for i in group] for group in kept] == [["scaled_return_0.94"], [*MarketState().names]]


@pytest.mark.parametrize("axes", [(4000, 3), (4000, 3, 2)])
def test_groups_are_hidden_whole_and_by_themselves_in_their_share_of_the_windows(axes):
    torch.manual_seed(0)
    before = window(*axes, len(SPEC.features))
    hide = HideInputs.by_kind(SPEC, 0.3)
    after = hide(before)
    assert (before.inputs == 1).all()  # the batch itself is left alone
    hidden = []
    for group in hide.groups:
        part = after.inputs[..., list(group)].flatten(1)
        assert (part == part[:, :1]).all()
        hidden.append(part[:, 0] == 0)
        assert hidden[-1].double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (hidden[0] & hidden[1]).double().mean().item() == pytest.approx(0.09, abs=0.02)
    assert (after.inputs[..., 0] == 1).all()
    assert replace(after, inputs=before.inputs).mask is before.mask


def test_nothing_is_hidden_at_probability_0_and_odd_settings_are_refused():
    same = window(5, 3, len(SPEC.features))
    assert torch.equal(HideInputs.by_kind(SPEC, 0.0)(same).inputs, same.inputs)
    with pytest.raises(ValueError, match="probability"):
        HideInputs([[0]], 1.0)
    with pytest.raises(ValueError, match="groups"):
        HideInputs([[]])
