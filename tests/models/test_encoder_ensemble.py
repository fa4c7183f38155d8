"""An ensemble of encoders is exactly its members, one by one: outputs and gradients."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from qtorch import models
from qtorch.nn import build, describe
from tests.training.runs import Across, LastOfAll

F, B, C, N, K = 5, 4, 12, 3, 3
PLAIN = {"input_noise": 0.0, "dropout": 0.0}

MAKE = {
    "gru": lambda: models.Recurrent(F, width=8, **PLAIN),
    "two layers": lambda: models.Recurrent(F, width=8, depth=2, **PLAIN),
    "lstm": lambda: models.Recurrent(F, width=8, cell="lstm", **PLAIN),
    "transformer": lambda: models.Transformer(F, width=8, heads=2, depth=1, **PLAIN),
    "windows": lambda: models.PatchTransformer(F, C, width=8, depth=1, heads=2, patch=4, stride=2, **PLAIN),
    "market": lambda: models.PanelTransformer(F, width=8, depth=1, heads=2, **PLAIN),
    "across": lambda: Across(F),
    "last of all": lambda: LastOfAll(F),
}


def made(name: str, **options) -> models.EncoderEnsemble:
    return models.EncoderEnsemble(MAKE[name](), K, **options)


def batch(ensemble: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """With padding, holes and a window without sessions; junk where masked."""
    shape = (B, C, N) if ensemble.layout == "panel" else (B, C)
    mask = torch.rand(shape) < 0.8
    mask[0, :5] = False
    mask[3] = False
    return torch.where(mask.unsqueeze(-1), torch.randn(*shape, F), torch.nan), mask


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("name", MAKE)
def test_it_is_a_loop_over_its_members(name, chunk):
    ensemble = made(name, chunk=chunk).double()  # sums in another order differ by 1e-5 in float32
    inputs, mask = batch(ensemble)
    inputs = inputs.double()
    members = [ensemble.member(k) for k in range(K)]
    hidden = ensemble(inputs, mask)
    alone = torch.stack([member(inputs, mask) for member in members], dim=-2)
    places = C if ensemble.causal else 1
    assert hidden.shape == (B, places, *mask.shape[2:], K, ensemble.out_features)
    torch.testing.assert_close(hidden, alone, rtol=0, atol=1e-12)
    weight = torch.randn_like(hidden)
    (weight * hidden).sum().backward()
    (weight * alone).sum().backward()
    for part, value in ensemble.encoder.named_parameters():
        expected = torch.stack([member.get_parameter(part).grad for member in members])
        torch.testing.assert_close(value.grad, expected, rtol=1e-11, atol=1e-12)
    assert not torch.equal(hidden[..., 0, :], hidden[..., 1, :])


@pytest.mark.parametrize("name", ["gru", "across"])
def test_members_start_as_fresh_encoders_of_one_seed_do(name):
    torch.manual_seed(5)
    alone = [MAKE[name]().state_dict() for _ in range(K)]
    torch.manual_seed(5)
    ensemble = made(name)
    for k, state in enumerate(alone):
        own = ensemble.member(k).state_dict()
        assert all(torch.equal(own[key], value) for key, value in state.items())


def test_encoders_that_are_given_are_the_members():
    encoders = [MAKE["gru"]() for _ in range(K)]
    ensemble = models.EncoderEnsemble.of(encoders)
    inputs, mask = batch(ensemble)
    alone = torch.stack([encoder(inputs, mask) for encoder in encoders], dim=-2)
    torch.testing.assert_close(ensemble(inputs, mask), alone, rtol=0, atol=1e-6)
    again = build(describe(ensemble))
    again.load_state_dict(ensemble.state_dict())
    assert torch.equal(again(inputs, mask), ensemble(inputs, mask))
    with pytest.raises(ValueError, match="differ in names or shapes"):
        models.EncoderEnsemble.of([MAKE["gru"](), MAKE["two layers"]()])


def test_a_member_is_a_view_of_the_ensemble():
    ensemble = made("gru")
    with torch.no_grad():
        ensemble.encoder.embed.weight.fill_(2.0)
    assert (ensemble.member(1).embed.weight == 2).all()


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_windows_that_overlap_end_in_the_states_of_each_alone(name):
    ensemble = made(name).eval()
    inputs, mask = torch.randn(40, F), torch.rand(40) < 0.8
    place = torch.tensor([0, 3, 4, 28])
    at = place[:, None] + torch.arange(C)
    expected = ensemble(inputs[at], mask[at])[:, -1]
    torch.testing.assert_close(ensemble.last_of(inputs, mask, place, C), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["Recurrent", "Transformer"])
@pytest.mark.parametrize("chunk", [None, 1])
def test_dropout_and_noise_differ_between_members(chunk, kind):
    encoder = getattr(models, kind)(F, width=8)
    ensemble = models.EncoderEnsemble(encoder, K, chunk)
    with torch.no_grad():
        for value in ensemble.parameters():
            value.copy_(value[:1].expand_as(value))
    inputs, mask = torch.randn(B, C, F), torch.ones(B, C, dtype=torch.bool)
    one, other, _ = ensemble(inputs, mask).unbind(-2)
    assert (one != other).any(-1).float().mean() > 0.9
    one, other, _ = ensemble.eval()(inputs, mask).unbind(-2)
    assert torch.equal(one, other)


def test_it_is_described_by_its_arguments():
    ensemble = made("gru", chunk=2)
    again = build(describe(ensemble))
    again.load_state_dict(ensemble.state_dict())
    inputs, mask = batch(ensemble)
    assert torch.equal(again(inputs, mask), ensemble(inputs, mask))
    assert (again.draws, again.layout, again.causal, again.in_features, again.context) == (K, "asset", True, F, None)


def test_batch_norms_are_refused():
    class Normed(Across):
        def __init__(self, in_features):
            super().__init__(in_features)
            self.norm = nn.BatchNorm1d(8)

    with pytest.raises(ValueError, match=r"has buffers norm\.num_batches_tracked"):
        models.EncoderEnsemble(Normed(F), 2)
    with pytest.raises(ValueError, match="members=0: give the number of encoders"):
        models.EncoderEnsemble(Across(F), 0)


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("name", ["gru", "lstm", "transformer", "dropout", "rank one"])
def test_it_compiles_whole(name):
    command = [sys.executable, "-m", "tests.models.compiled_ensembles", name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
