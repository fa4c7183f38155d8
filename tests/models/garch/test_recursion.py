import pytest
import torch

from qtorch.models.garch.recursion import fold, scan, scan_back, unfold


@pytest.mark.parametrize("T", [1, 7, 63, 64, 200, 1003])
def test_scans_are_the_recursions_and_adjoint_to_each_other(T):
    u, w = torch.randn(2, T, 5, dtype=torch.float64)
    decay = torch.tensor([0.0, 0.3, 0.9, 0.999, 1.0], dtype=torch.float64)
    first = torch.rand(5, dtype=torch.float64)
    forwards, state = [], first
    for t in range(T):
        forwards.append(state)
        state = u[t] + decay * state
    folded = scan(fold(u), decay, first)
    torch.testing.assert_close(unfold(folded[:-1], T), torch.stack(forwards), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(unfold(folded[1:], T)[-1], state, rtol=1e-12, atol=1e-12)
    backwards, state = [], torch.zeros(5, dtype=torch.float64)
    for t in reversed(range(T)):
        state = w[t] + decay * state
        backwards.insert(0, state)
    back = scan_back(fold(w), decay)
    torch.testing.assert_close(unfold(back[:-1], T), torch.stack(backwards), rtol=1e-12, atol=1e-12)
    # <scan u, w> = <u, scan_back w> one place later, from zero.
    zero = torch.zeros_like(first)
    left = (unfold(scan(fold(u), decay, zero)[:-1], T) * w).sum(0)
    right = (u * unfold(back[1:], T)).sum(0)
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


def test_unfold_inverts_fold():
    series = torch.randn(100, 3, dtype=torch.float64)
    assert torch.equal(unfold(fold(series), 100), series)
