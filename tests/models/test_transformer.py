import pytest
import torch

from qtorch import heads
from qtorch.models import Transformer


@pytest.fixture
def encoder():
    return Transformer(5, width=16, depth=2, heads=2, dropout=0.0).eval()


@pytest.fixture
def batch():
    inputs = torch.randn(6, 12, 5)
    mask = torch.ones(6, 12, dtype=torch.bool)
    mask[0, :7] = False
    mask[1, 4] = False
    return inputs, mask


def test_masked_inputs_influence_nothing(encoder, batch):
    inputs, mask = batch
    hidden = encoder(inputs, mask)
    for junk in (50.0, torch.nan, torch.inf):
        changed = torch.where(mask.unsqueeze(-1), inputs, junk)
        assert torch.equal(encoder(changed, mask), hidden)
    assert (hidden[~mask] == 0).all()


def test_masked_inputs_get_no_gradient(encoder, batch):
    inputs, mask = batch
    inputs.requires_grad_()
    encoder(inputs, mask).square().sum().backward()
    assert (inputs.grad[~mask] == 0).all()
    assert inputs.grad.isfinite().all()


def test_more_padding_on_the_left_changes_nothing(encoder, batch):
    inputs, mask = batch
    hidden = encoder(inputs, mask)
    padding = torch.randn(6, 9, 5)
    longer = encoder(torch.cat([padding, inputs], 1), torch.cat([torch.zeros(6, 9, dtype=torch.bool), mask], 1))
    torch.testing.assert_close(longer[:, 9:], hidden, rtol=0, atol=1e-6)


def test_later_sessions_do_not_reach_earlier_ones(encoder, batch):
    inputs, mask = batch
    changed = inputs.clone()
    changed[:, 8:] += 1
    assert torch.equal(encoder(changed, mask)[:, :8], encoder(inputs, mask)[:, :8])
    assert not torch.allclose(encoder(changed, mask)[:, 8:], encoder(inputs, mask)[:, 8:])


def test_earlier_sessions_reach_the_last(encoder, batch):
    inputs, mask = batch
    changed = inputs.clone()
    changed[2, 0] += 1
    assert not torch.allclose(encoder(changed, mask)[2, -1], encoder(inputs, mask)[2, -1])


def test_order_matters(encoder):
    inputs, mask = torch.randn(1, 6, 5), torch.ones(1, 6, dtype=torch.bool)
    turned = inputs[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(encoder(turned, mask)[:, -1], encoder(inputs, mask)[:, -1], atol=1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 18 must be a multiple of twice the heads, 4"):
        Transformer(5, width=18, heads=4)


def test_it_exports_with_dynamic_batch_and_compiles_to_the_same_numbers(encoder, batch):
    exported = torch.export.export(encoder, batch, dynamic_shapes=({0: torch.export.Dim("batch", min=2)},) * 2)
    inputs, mask = batch
    more = (inputs.repeat(2, 1, 1), mask.repeat(2, 1))
    torch.testing.assert_close(exported.module()(*more), encoder(*more))


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_no_hidden_state_gives_an_absurd_forecast(size):
    head = heads.SkewedStudentT(8, (1, 10))
    torch.nn.init.normal_(head.project.weight)
    distribution = head(size * torch.randn(500, 8))
    root = torch.tensor([1.0, 10.0]).sqrt()
    volatility = distribution.scale * torch.sqrt(distribution.df / (distribution.df - 2))
    assert ((volatility >= 0.124 * root) & (volatility <= 8.01 * root)).all()
    assert ((distribution.df >= 2.1) & (distribution.df <= 60)).all()
    assert (distribution.icdf(torch.tensor(0.1)) < 0).all()


def test_a_fresh_head_is_riskmetrics_with_heavier_tails():
    distribution = heads.SkewedStudentT(8, (1, 10))(torch.randn(3, 8))
    torch.testing.assert_close(distribution.variance, torch.tensor([[1.0, 10.0]]).expand(3, 2), rtol=1e-5, atol=0)
    assert distribution.df.min() > 5
    assert (distribution.mean == 0).all()
