import pytest
import torch
from torch import nn

from qtorch.nn import (
    Block,
    InducedBlock,
    instance_norm,
    last_steps,
    rotary_angles,
    rotate,
    take,
    usable_first,
    usable_keys,
)


def test_usable_steps_come_first_in_their_order_and_go_back():
    mask = torch.rand(50, 17) < torch.rand(50, 1)
    steps = torch.arange(17).expand(50, 17)
    order, place = usable_first(mask)
    for b in range(50):
        expected = torch.cat([steps[b][mask[b]], steps[b][~mask[b]]])
        assert torch.equal(order[b], expected)
    x = torch.randn(50, 17, 3)
    assert torch.equal(take(take(x, order), place), x)
    assert torch.equal(take(x, order[:, :4]), x.gather(1, order[:, :4, None].expand(-1, -1, 3)))


def test_rotary_products_depend_on_distances_alone_and_keep_lengths():
    q, k = torch.randn(2, 1, 4, 1, 12, dtype=torch.float64)

    def product(at: float, distance: float) -> torch.Tensor:
        angles = [rotary_angles(torch.tensor([at + d]), 12) for d in (distance, 0.0)]
        return (rotate(q, angles[0]) * rotate(k, angles[1])).sum(-1)

    for distance in (0.0, 1.0, 7.0, 90.0):
        torch.testing.assert_close(product(0.0, distance), product(200.0, distance), rtol=0, atol=1e-4)
    assert not torch.allclose(product(0.0, 1.0), product(0.0, 3.0), atol=1e-2)
    turned = rotate(q, rotary_angles(torch.tensor([33.0]), 12))
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1), rtol=1e-6, atol=0)


def test_a_block_is_softmax_attention_and_a_feed_forward_layer():
    block = Block(8, 2, 2, 0.3).eval().double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    allowed, some = usable_keys(mask)
    got = block(x, allowed, some)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in block.qkv(block.attention_norm(x)).chunk(3, -1))
    score = (q @ k.mT / 2).masked_fill(~mask[:, None, None], -torch.inf)
    weight = score.softmax(-1).nan_to_num()  # nothing to attend to
    hidden = x + block.out((weight @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, hidden + block.feedforward(hidden))


@pytest.mark.parametrize("make", [lambda: Block(8, 2, 2, 0.0), lambda: InducedBlock(8, 2, 2, 0.0, 3)])
def test_masked_members_of_a_set_ask_and_are_not_seen(make):
    block = make()
    x = torch.randn(2, 6, 8, requires_grad=True)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 4] = False
    mask[1] = False
    y = block(x, *usable_keys(mask))
    (others,) = torch.autograd.grad(y[0, :4].square().sum() + y[1, 0].square().sum(), x, retain_graph=True)
    assert (others[0, 4] == 0).all()
    assert (others[1, 1:] == 0).all()
    (own,) = torch.autograd.grad(y[0, 4].square().sum(), x)
    assert (own[0] != 0).all(-1).all()


def test_dropout_of_what_layers_add_leaves_attention_weights_alone():
    torch.manual_seed(0)
    assert Block(8, 2, 2, 0.3).weight_dropout == 0
    assert Block(8, 2, 2, 0.3, drop_weights=True).drop.p == 0
    for drop_weights in (False, True):
        block, x = Block(8, 2, 2, 0.3, drop_weights), torch.randn(1, 5, 8)
        assert not torch.allclose(block(x), block(x))
        assert torch.equal(block.eval()(x), block(x))
    with pytest.raises(ValueError, match="width 10 must be a multiple of the heads, 4"):
        Block(10, 4, 2, 0.0)


def test_series_are_standardised_by_their_usable_steps():
    values = torch.randn(4, 30, 2, dtype=torch.float64) * 5 + 3
    mask = torch.rand(4, 30, 1) < 0.7
    mask[3] = False
    values = torch.where(mask, values, 0.0)
    z, mean, deviation = instance_norm(values, mask)
    for b in range(3):
        kept = values[b][mask[b, :, 0]]
        torch.testing.assert_close(mean[b], kept.mean(0))
        torch.testing.assert_close(deviation[b], (kept.var(0, correction=0) + 1e-5).sqrt())
        torch.testing.assert_close(z[b][mask[b, :, 0]], (kept - mean[b]) / deviation[b])
    assert (z[~mask.expand(z.shape)] == 0).all()
    assert (mean[3] == 0).all()


def test_windows_are_cut_or_padded_on_the_left():
    x = torch.arange(1, 7).reshape(1, 6, 1)
    assert last_steps(x, 4).flatten().tolist() == [3, 4, 5, 6]
    assert last_steps(x, 8).flatten().tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    assert last_steps(torch.ones(1, 2, dtype=torch.bool), 3).tolist() == [[False, True, True]]


def test_gradients_of_an_induced_block_are_those_of_its_function():
    block = InducedBlock(4, 2, 1, 0.0, 2).double()
    mask = torch.tensor([[True, True, False]])
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        assert torch.autograd.gradcheck(lambda x: block(x, *usable_keys(mask)), x)
