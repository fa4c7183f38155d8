import pytest
import torch
from torch import nn

from qtorch.nn.recurrence import CELLS, Recurrence, loop

TORCHS = {"gru": nn.GRU, "lstm": nn.LSTM}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("depth", [1, 2])
def test_it_is_torchs_with_the_same_draws_and_names(cell, depth):
    made = []
    for make in (lambda: Recurrence(cell, 5, depth), lambda: TORCHS[cell](5, 5, depth, batch_first=True)):
        torch.manual_seed(0)
        made.append(make())
    ours, torchs = made
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    x = torch.randn(3, 7, 5)
    assert torch.equal(ours(x), torchs(x)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_the_operation_has_torchs_states_and_gradients(cell):
    layer = Recurrence(cell, 4).double()
    x = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)
    arguments = x, *layer.parameters()
    weight = torch.randn(3, 6, 4, dtype=torch.float64)
    states, operation = layer(x), loop(*arguments, cell)
    torch.testing.assert_close(operation, states, rtol=0, atol=1e-15)
    expected = torch.autograd.grad((weight * states).sum(), arguments)
    for ours, torchs in zip(torch.autograd.grad((weight * operation).sum(), arguments), expected, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(lambda *tensors: loop(*tensors, cell), arguments)


@pytest.mark.parametrize("cell", CELLS)
def test_the_operation_is_what_it_tells_the_compiler(cell):
    layer = Recurrence(cell, 4)
    x = torch.randn(3, 6, 4, requires_grad=True)
    torch.library.opcheck(loop, (x, *layer.parameters(), cell))
