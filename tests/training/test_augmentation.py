from dataclasses import replace

import pytest
import torch

from qtorch.data import Features, WindowSpec
from qtorch.data.features import Label, LaterCloses, MarketState, Scaled
from qtorch.data.window import Window
from qtorch.training.augmentation import HideInputs

SPEC = WindowSpec(8, (1,), Features((Scaled(), MarketState(), Label("sector", ("a", "b")), LaterCloses())))


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


def test_what_is_shared_is_one_group_and_each_label_another():
    names = SPEC.features.names
    market, sector = HideInputs.shared(SPEC).groups
    assert [names[i] for i in sector] == ["sector=a", "sector=b"]
    assert {names[i] for i in market} == {*MarketState().names, *LaterCloses().names}


@pytest.mark.parametrize("axes", [(4000, 3), (4000, 3, 2)])
def test_groups_are_hidden_whole_and_by_themselves_in_their_share_of_the_windows(axes):
    torch.manual_seed(0)
    before = window(*axes, len(SPEC.features))
    hide = HideInputs.shared(SPEC, 0.3)
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
    assert torch.equal(HideInputs.shared(SPEC, 0.0)(same).inputs, same.inputs)
    with pytest.raises(ValueError, match="probability"):
        HideInputs([[0]], 1.0)
    with pytest.raises(ValueError, match="groups"):
        HideInputs([[]])
