"""What every encoder keeps: masked values change no bit, padding nothing, and the causal ones never see ahead."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qtorch import models
from qtorch.nn import build, days_since_start, describe, windows_of

F, B, C, N = 5, 4, 12, 3
GAP = 2  # the column of log days
PLAIN = {"input_noise": 0.0, "dropout": 0.0}
SMALL = PLAIN | {"width": 16, "heads": 2}

MAKE = {
    "temporal": lambda: models.TemporalTransformer(F, **SMALL),
    "temporal in days": lambda: models.TemporalTransformer(F, **SMALL, gap_input=GAP, patch=3, context=5),
    "gru": lambda: models.Recurrent(F, width=8, depth=2, **PLAIN),
    "lstm": lambda: models.Recurrent(F, width=8, cell="lstm", **PLAIN),
    "panel": lambda: models.PanelTransformer(F, **SMALL),
    "panel, induced": lambda: models.PanelTransformer(F, **SMALL, gap_input=GAP, inducing=2),
    "patch": lambda: models.PatchTransformer(F, context=C, **SMALL, patch=4, stride=2),
    "patch, raw": lambda: models.PatchTransformer(
        F, context=C, **SMALL, patch=5, stride=4, standardise=False, out_features=7
    ),
    "inverted": lambda: models.InvertedTransformer(F, context=C, **SMALL),
    "inverted inputs": lambda: models.InvertedTransformer(F, context=C, layout="asset", **SMALL),
}
CAUSAL = [name for name in MAKE if not name.startswith(("patch", "inverted"))]
PANEL = ["panel", "panel, induced", "inverted"]


@pytest.fixture(params=MAKE)
def encoder(request) -> nn.Module:
    return make(request.param)


def make(name: str) -> nn.Module:
    return MAKE[name]().eval()


def batch(encoder: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows with padding, with holes, wholly usable and wholly masked; logs of 1, 3 and 4 days in one column."""
    panel = encoder.layout == "panel"
    shape = (B, C, N) if panel else (B, C)
    inputs = torch.randn(*shape, F)
    inputs[..., GAP] = torch.tensor([1.0, 1.0, 1.0, 3.0, 4.0]).log()[torch.randint(5, shape)]
    mask = torch.ones(shape, dtype=torch.bool)
    mask[0, :7] = False
    mask[1, [4, 5, 9]] = False
    mask[3] = False
    if panel:
        mask[1, :, 1] = True
        mask[2, [5, 6, 11], 1] = False  # closed on the last row
        mask[2, :, 2] = False
    return inputs, mask


def test_masked_values_change_no_bit(encoder):
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)
    assert hidden.shape[-1] == encoder.out_features
    for junk in (50.0, torch.nan, torch.inf):
        assert torch.equal(encoder(torch.where(mask.unsqueeze(-1), inputs, junk), mask), hidden)
    if not encoder.causal:
        assert (hidden[3] == 0).all()
        assert hidden.shape == (B, 1, *inputs.shape[2:-1], encoder.out_features)
    elif encoder.layout == "asset":
        assert (hidden[~mask] == 0).all()
    else:
        assert (hidden[mask.cumsum(1) == 0] == 0).all()


def test_masked_values_get_no_gradient_and_others_a_finite_one(encoder):
    encoder.train()
    inputs, mask = batch(encoder)
    inputs = torch.where(mask.unsqueeze(-1), inputs, torch.nan).requires_grad_()
    encoder(inputs, mask).square().sum().backward()
    assert (inputs.grad[~mask] == 0).all()
    assert inputs.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    # Of a non-causal encoder every usable step reaches the output; of a causal one each reaches its own.
    assert (inputs.grad[mask] != 0).any(-1).all()


def test_more_padding_on_the_left_changes_nothing(encoder):
    inputs, mask = batch(encoder)
    if not encoder.causal:  # one with room for the padding
        spec = describe(encoder)
        encoder = build(spec | {"init_args": spec["init_args"] | {"context": C + 9}}).eval()
    hidden = encoder(inputs, mask)
    padding = torch.full((B, 9, *inputs.shape[2:]), torch.nan)
    longer = encoder(
        torch.cat([padding, inputs], 1), torch.cat([torch.zeros(B, 9, *mask.shape[2:], dtype=torch.bool), mask], 1)
    )
    torch.testing.assert_close(longer[:, -hidden.shape[1] :], hidden, rtol=0, atol=1e-6)


def test_where_dropout_stands_matters_in_training_alone():
    inputs, mask = torch.randn(B, C, F), torch.ones(B, C, dtype=torch.bool)
    on_weights = models.TemporalTransformer(F, **SMALL | {"dropout": 0.9})
    spec = describe(on_weights)
    on_sums = build(spec | {"init_args": spec["init_args"] | {"drop_weights": False}})
    on_sums.load_state_dict(on_weights.state_dict())
    assert torch.equal(on_sums.eval()(inputs, mask), on_weights.eval()(inputs, mask))
    seen = {}
    for name, encoder in (("weights", on_weights), ("sums", on_sums)):
        block = encoder.train().blocks[0]
        block.feedforward.eval()
        kept = {}
        block.out.register_forward_hook(lambda *hooked, kept=kept: kept.update(attended=hooked[1][0]))
        assert not torch.equal(encoder(inputs, mask), encoder(inputs, mask))
        seen[name] = (kept["attended"] == 0).double().mean()
    assert seen["weights"] > 0.01  # whole heads are dropped where few positions are attended to
    assert seen["sums"] == 0


@pytest.mark.parametrize("layer", [{}, {"cell": "lstm"}, {"depth": 2}])
@pytest.mark.parametrize("places", [range(40), [0, 0, 1, 2, 3, 9, 10, 40], [0, 13, 45], [0]])
def test_windows_that_overlap_end_in_the_states_of_each_alone(layer, places):
    encoder = models.Recurrent(F, width=8, **layer).eval()
    place = torch.tensor(places)
    inputs = torch.randn(int(place[-1]) + C, F)
    holes = torch.rand(len(inputs)) < 0.7
    for mask in (holes, torch.ones_like(holes)):
        seen = torch.where(mask.unsqueeze(-1), inputs, torch.nan)
        alone = encoder(windows_of(seen, place, C), windows_of(mask, place, C))[:, -1]
        torch.testing.assert_close(encoder.last_of(seen, mask, place, C), alone, rtol=0, atol=1e-6)
        exact = build(describe(encoder)).eval().double()
        exact.load_state_dict(encoder.state_dict())
        double = exact.last_of(seen.double(), mask, place, C)
        torch.testing.assert_close(double, alone.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CAUSAL)
def test_later_sessions_do_not_reach_earlier_ones(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)
    changed, other = inputs.clone(), mask.clone()
    changed[:, 8:] += 1
    other[:, 10] = ~mask[:, 10]
    assert torch.equal(encoder(changed, mask)[:, :8], hidden[:, :8])
    torch.testing.assert_close(encoder(changed, other)[:, :8], hidden[:, :8], rtol=0, atol=1e-6)
    assert not torch.allclose(encoder(changed, mask)[2, 8:], hidden[2, 8:])


@pytest.mark.parametrize("name", CAUSAL)
def test_a_position_of_a_window_is_the_last_of_a_shorter_one(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)
    for c in (3, 9):
        torch.testing.assert_close(encoder(inputs[:, :c], mask[:, :c]), hidden[:, :c], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CAUSAL if name not in PANEL])
def test_masked_steps_in_the_middle_are_as_if_cut_out(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    kept = inputs[1][mask[1]][None]
    alone = encoder(kept, torch.ones(kept.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(encoder(inputs, mask)[1][mask[1]], alone[0], rtol=0, atol=1e-6)


def test_earlier_sessions_reach_the_last_and_their_order_matters(encoder):
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)[2, -1]
    changed = inputs.clone()
    changed[2, 9, ..., 0] += 1
    assert not torch.allclose(encoder(changed, mask)[2, -1], hidden, atol=1e-5)
    turned = inputs.clone()
    turned[2, [8, 9]] = inputs[2, [9, 8]]
    assert not torch.allclose(encoder(turned, mask)[2, -1], hidden, atol=1e-5)


@pytest.mark.parametrize("name", PANEL)
def test_permuting_assets_permutes_the_output(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    order = [2, 0, 1]
    turned = encoder(inputs[:, :, order], mask[:, :, order])
    torch.testing.assert_close(turned, encoder(inputs, mask)[:, :, order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PANEL)
def test_an_asset_without_sessions_is_as_if_it_were_not_there(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    without = encoder(inputs[2:3, :, :2], mask[2:3, :, :2])
    torch.testing.assert_close(encoder(inputs, mask)[2:3, :, :2], without, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PANEL)
def test_assets_see_each_other_but_not_those_that_are_closed(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)
    changed = inputs.clone()
    changed[2, -1, 0, 0] += 1  # the one asset that is open on the last row
    other = encoder(changed, mask)
    assert not torch.allclose(other[2, -1, 1], hidden[2, -1, 1], atol=1e-5), "the closed asset sees the open one"
    if encoder.causal:
        changed = inputs.clone()
        changed[2, 10, 1, 0] += 1  # the closed asset's last session: the open asset saw it on row 10, not on row 11
        mask[2, 10, 0] = False
        before = encoder(inputs, mask)
        seen = encoder(changed, mask)
        assert torch.equal(seen[2, 11, 0], before[2, 11, 0])
        assert not torch.allclose(seen[2, 11, 1], before[2, 11, 1], atol=1e-5)


def test_noise_and_dropout_are_there_in_training_alone(encoder):
    spec = describe(encoder)
    noisy = build(spec | {"init_args": spec["init_args"] | {"input_noise": 0.3, "dropout": 0.2}})
    noisy.load_state_dict(encoder.state_dict())
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)
    assert not torch.allclose(noisy.train()(inputs, mask), hidden, atol=1e-3)
    assert torch.equal(noisy.eval()(inputs, mask), hidden)
    junk = torch.where(mask.unsqueeze(-1), inputs, torch.nan)
    torch.manual_seed(0)
    a = noisy.train()(inputs, mask)
    torch.manual_seed(0)
    assert torch.equal(noisy(junk, mask), a)


def test_it_is_described_in_plain_values_and_built_again(encoder):
    again = build(json.loads(json.dumps(describe(encoder))))
    again.load_state_dict(encoder.state_dict())
    inputs, mask = batch(encoder)
    assert torch.equal(again.eval()(inputs, mask), encoder(inputs, mask))


def test_bfloat16_autocast_stays_near_float32(encoder):
    inputs, mask = batch(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(inputs, mask)
    assert rough.isfinite().all()
    torch.testing.assert_close(rough.float(), encoder(inputs, mask), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("temporal in days", "panel, induced", "patch") else pytest.param(name, marks=pytest.mark.slow)
        for name in MAKE
    ],
)
def test_it_exports_with_a_dynamic_batch(name):
    encoder = make(name)
    example = batch(encoder)
    dynamic = {0: torch.export.Dim("batch", min=2)}
    exported = torch.export.export(encoder, example, dynamic_shapes=(dynamic, dynamic))
    more = tuple(torch.cat([x, x]) for x in example)
    torch.testing.assert_close(exported.module()(*more), encoder(*more), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_they_compile_without_a_graph_break():
    """In a process of its own, as compiled code can't contain the run-time check of annotations."""
    code = "import tests.models.test_encoders as t; t.compare_compiled()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def compare_compiled() -> None:
    for name in MAKE:
        encoder = make(name)
        inputs, mask = batch(encoder)
        compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(inputs, mask), encoder(inputs, mask), rtol=0, atol=1e-6)
        compiled(inputs, mask).sum().backward()
        assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("name", MAKE)
def test_on_a_gpu_it_gives_what_it_gives_on_a_cpu(name):
    encoder = make(name)
    inputs, mask = batch(encoder)
    hidden = encoder(inputs, mask)
    there = encoder.cuda()
    junk = torch.where(mask.unsqueeze(-1), inputs, torch.nan).cuda().requires_grad_()
    got = there(junk, mask.cuda())
    torch.testing.assert_close(got.cpu(), hidden, rtol=1e-3, atol=1e-3)
    assert torch.equal(there(inputs.cuda(), mask.cuda()), got)
    got.square().sum().backward()
    assert junk.grad.isfinite().all()
    with torch.autocast("cuda", torch.bfloat16):
        rough = there(inputs.cuda(), mask.cuda())
    torch.testing.assert_close(rough.float().cpu(), hidden, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("options", [{}, {"gap_input": GAP}, {"gap_input": GAP, "patch": 3, "context": 5}])
@pytest.mark.parametrize("sizes", [(1,) * C, (5, 4, 3), (C,)])
def test_steps_with_a_cache_give_what_one_window_of_all_sessions_gives(options, sizes):
    encoder = models.TemporalTransformer(F, **SMALL, **options).eval()
    inputs, mask = batch(encoder)
    cache, parts = None, []
    for x, usable in zip(inputs.split(sizes, 1), mask.split(sizes, 1), strict=True):
        hidden, cache = encoder.step(x, usable, cache)
        parts.append(hidden)
        assert cache.keys.shape[3] <= (encoder.context or C)
    torch.testing.assert_close(torch.cat(parts, 1), encoder(inputs, mask), rtol=0, atol=1e-6)


def test_a_cache_may_live_for_years():
    """Positions are kept relative to the last session, so that their rounding error does not grow."""
    encoder = models.TemporalTransformer(F, **SMALL, gap_input=GAP, context=8).eval()
    inputs = torch.randn(1, 1500, F)
    inputs[..., GAP] = torch.tensor([1.0, 1.0, 3.0]).log()[torch.randint(3, (1, 1500))]
    mask = torch.rand(1, 1500) < 0.9
    mask[:, -1] = True
    cache = None
    for x, usable in zip(inputs.split(100, 1), mask.split(100, 1), strict=True):
        hidden, cache = encoder.step(x, usable, cache)
    recent = encoder(inputs[:, -40:], mask[:, -40:])  # more than depth times the context, which is all that counts
    torch.testing.assert_close(hidden[:, -1], recent[:, -1], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_step_with_a_bounded_cache_exports():
    """From the first call on the cache has one size, so that one exported program serves every night."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = models.TemporalTransformer(F, **SMALL, gap_input=GAP, patch=3, context=5).eval()

        def forward(self, inputs, mask, cache):
            return self.encoder.step(inputs, mask, models.SessionCache(*cache))

    step = Step()
    inputs, mask = batch(step.encoder)
    _, cache = step.encoder.step(inputs[:, :4], mask[:, :4])
    program = torch.export.export(step, (inputs[:, 4:5], mask[:, 4:5], tuple(cache))).module()
    parts = []
    for c in range(4, C):
        hidden, cache = program(inputs[:, c : c + 1], mask[:, c : c + 1], tuple(cache))
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, 1), step.encoder(inputs, mask)[:, 4:], rtol=0, atol=1e-6)


def test_masked_values_change_no_bit_of_a_cache():
    encoder = models.TemporalTransformer(F, **SMALL, gap_input=GAP, patch=2, context=4).eval()
    inputs, mask = batch(encoder)
    results = []
    for junk in (0.0, torch.nan):
        x, cache = torch.where(mask.unsqueeze(-1), inputs, junk), None
        for c in range(0, C, 3):
            hidden, cache = encoder.step(x[:, c : c + 3], mask[:, c : c + 3], cache)
        results.append((hidden, *cache))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_distances_in_time_are_calendar_days():
    """Where every session is a day from the last, days are sessions; a weekend moves what lies before it away."""
    encoder = models.TemporalTransformer(F, **SMALL, gap_input=GAP).eval()
    counting = models.TemporalTransformer(F, **SMALL).eval()
    counting.load_state_dict(encoder.state_dict())
    encoder.embed.weight.data[:, GAP] = counting.embed.weight.data[:, GAP] = 0  # known by its position alone
    inputs, mask = batch(encoder)
    inputs[..., GAP] = 0.0
    daily = encoder(inputs, mask)
    torch.testing.assert_close(daily, counting(inputs, mask), rtol=0, atol=1e-6)
    inputs[2, 6, GAP] = torch.tensor(3.0).log()
    weekend = encoder(inputs, mask)
    torch.testing.assert_close(weekend[2, :6], daily[2, :6], rtol=0, atol=1e-6)
    assert not torch.allclose(weekend[2, 6:], daily[2, 6:], atol=1e-5)
    days = torch.tensor([[[1.0], [3.0], [99.0], [4.0]]]).log()
    usable = torch.tensor([[True, True, False, True]])
    torch.testing.assert_close(days_since_start(days, usable, 0), torch.tensor([[1.0, 4.0, 4.0, 8.0]]))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrent_net_is_a_loop_that_skips_masked_steps(cell):
    encoder = models.Recurrent(F, width=8, cell=cell, **PLAIN).eval()
    inputs, mask = batch(encoder)
    loop = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}[cell](8, 8)
    loop.load_state_dict({name.removesuffix("_l0"): value for name, value in encoder.layers.state_dict().items()})
    state = torch.zeros(B, 8) if cell == "gru" else (torch.zeros(B, 8), torch.zeros(B, 8))
    expected = torch.zeros(B, C, 8)
    for c in range(C):
        keep = mask[:, c, None]
        seen = torch.where(keep, inputs[:, c], 0.0)
        new = loop(nn.functional.gelu(encoder.embed(seen)), state)
        if cell == "gru":
            state = output = torch.where(keep, new, state)
        else:
            state = tuple(torch.where(keep, a, b) for a, b in zip(new, state, strict=True))
            output = state[0]
        expected[:, c] = torch.where(keep, encoder.norm(output + encoder.past(seen)), 0.0)
    torch.testing.assert_close(encoder(inputs, mask), expected, rtol=0, atol=1e-6)


def test_inducing_points_make_the_cost_linear_in_the_assets():
    def flops(assets: int, inducing: int | None) -> int:
        encoder = models.PanelTransformer(F, **SMALL, inducing=inducing)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as mode:
            encoder(torch.randn(1, 4, assets, F), torch.ones(1, 4, assets, dtype=torch.bool))
        return mode.get_total_flops()

    few, many = (flops(n, 8) for n in (100, 400))
    assert many < 4 * few
    assert flops(400, None) > 5 * flops(100, None)


def test_the_former_name_is_the_same_class():
    assert models.Transformer is models.TemporalTransformer
    spec = {"class_path": "qtorch.models.transformer.Transformer", "init_args": {"in_features": 3}}
    assert isinstance(build(spec), models.TemporalTransformer)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: models.TemporalTransformer(5, width=18, heads=4), "width 18 must be a multiple of twice the heads, 4"),
        (lambda: models.PanelTransformer(5, width=18, heads=4), "width 18 must be a multiple of twice the heads, 4"),
        (lambda: models.PatchTransformer(5, width=18, heads=4), "width 18 must be a multiple of the heads, 4"),
        (lambda: models.TemporalTransformer(5, gap_input=5), "gap_input 5 must be one of the inputs 0 to 4"),
        (lambda: models.PanelTransformer(5, gap_input=-1), "gap_input -1 must be one of the inputs 0 to 4"),
        (lambda: models.PanelTransformer(5, inducing=0), "inducing must be at least 1 point"),
        (lambda: models.TemporalTransformer(5, patch=0), "patch and context must be at least 1 session, not 0 and"),
        (lambda: models.PatchTransformer(5, context=8), "stride, patch and context must ascend from 1, not 8, 16, 8"),
        (lambda: models.InvertedTransformer(5, layout="rows"), "layout must be 'panel' or 'asset', not 'rows'"),
        (lambda: models.Recurrent(5, cell="rnn"), "cell must be one of gru, lstm, not 'rnn'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()
