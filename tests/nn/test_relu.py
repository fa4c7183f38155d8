"""The rectifier that is compiled; compiled flows test that it is used."""

import torch

from qtorch.nn.relu import _Relu


def test_it_has_the_values_and_gradients_of_torchs_own():
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0, torch.inf], requires_grad=True)
    weight = torch.arange(1.0, 7.0)
    value, expected = _Relu.apply(x), torch.relu(x)
    assert torch.equal(value, expected)
    assert torch.equal(torch.autograd.grad(value, x, weight)[0], torch.autograd.grad(expected, x, weight)[0])
