import dataclasses
import signal
import subprocess
import sys

import pytest
import torch

from qtorch.data import WindowSource
from qtorch.training import CRPS, FZ0, LogScore, evaluate, fit
from tests.training import killed
from tests.training.runs import SPEC, same_weights, small_data, small_model, small_panel


@pytest.fixture(scope="module")
def panel():
    return small_panel()


def trained(panel, seed=5, model_seed=0, **options):
    model = small_model(model_seed)
    fit(model, small_data(panel), max_epochs=2, seed=seed, **options)
    return model


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(panel):
    first = trained(panel)
    torch.rand(17)  # whatever the generator's state
    assert same_weights(first, trained(panel))
    assert not same_weights(first, trained(panel, seed=6))


def test_without_a_seed_torchs_generator_decides(panel):
    runs = []
    for seed in (1, 1, 2):
        model = small_model()
        torch.manual_seed(seed)
        fit(model, small_data(panel), max_epochs=1)
        runs.append(model)
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


def test_a_run_that_broke_off_ends_as_an_unbroken_one(panel, tmp_path):
    """In the middle of its third epoch; dropout, noise, batches and averages go on."""

    def run(folder, break_in=None):
        model = small_model(seed=3)

        def fatal(batch, batch_idx):
            if model.current_epoch == break_in and batch_idx == 2:
                raise InterruptedError

        model.on_train_batch_start = fatal
        fit(model, small_data(panel), max_epochs=4, averaging=0.9, checkpoints=tmp_path / folder, seed=5)
        return model

    with pytest.raises(InterruptedError):
        run("broken", break_in=2)
    saved = torch.load(tmp_path / "broken" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    unbroken, resumed = run("unbroken"), run("broken")
    assert same_weights(resumed, unbroken)
    assert not same_weights(resumed, small_model(seed=3))
    assert same_weights(run("broken"), unbroken)  # there is nothing left to do


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_an_unbroken_one(tmp_path):
    """Without warning, in the middle of its third epoch."""
    command = [sys.executable, "-m", "tests.training.killed", str(tmp_path / "broken"), str(tmp_path / "none")]
    end = subprocess.run([*command, "2"], timeout=300, capture_output=True)
    assert end.returncode == -signal.SIGKILL, end.stderr.decode()
    assert torch.load(tmp_path / "broken" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert not (tmp_path / "none").exists()
    assert same_weights(killed.run(tmp_path / "broken"), killed.run(tmp_path / "unbroken"))


def test_a_run_that_had_stopped_early_trains_no_further(panel, tmp_path):
    def run():
        model = small_model(seed=3)  # which stops early
        loss = fit(model, small_data(panel), max_epochs=9, patience=1, checkpoints=tmp_path, seed=1)
        return model, loss

    model, loss = run()
    epoch = torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"]
    assert epoch < 8
    again, other = run()
    assert same_weights(model, again)
    assert loss == other
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == epoch


def test_a_checkpoint_of_another_run_is_refused(panel, tmp_path):
    trained(panel, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="checkpoint of another run: patience 3 there, 4 here. Remove it"):
        trained(panel, checkpoints=tmp_path, patience=4)
    with pytest.raises(ValueError, match="the checkpoint is of a run with seed 5, not 6"):
        trained(panel, checkpoints=tmp_path, seed=6)


def test_checkpoints_change_nothing(panel, tmp_path):
    assert same_weights(trained(panel), trained(panel, checkpoints=tmp_path))


def test_the_averaged_weights_are_validated_and_kept(panel):
    """The score returned is that of the weights that the model is left with, which no training step made."""
    plain, averaged = small_model(), small_model()
    seen = []
    averaged.on_before_optimizer_step = lambda optimizer: seen.append(averaged.network.encoder.embed.weight.clone())
    fit(plain, small_data(panel), max_epochs=3, seed=5, averaging=None)
    loss = fit(averaged, small_data(panel), max_epochs=3, seed=5, averaging=0.95)
    assert not same_weights(plain, averaged)
    assert loss == pytest.approx(evaluate(averaged, small_data(panel).val_dataloader())["loss"], rel=1e-6)
    kept = averaged.network.encoder.embed.weight
    assert not any(torch.equal(kept, weight) for weight in seen)
    low, high = torch.stack(seen).amin(0), torch.stack([*seen, plain.network.encoder.embed.weight]).amax(0)
    assert ((kept >= low - 1e-2) & (kept <= high + 1e-2)).all()


def test_the_average_is_that_of_its_formula():
    from qtorch.training.averaging import _update

    steps = torch.randn(30, 3).cumsum(0)
    averaged = [steps[0].clone()]
    expected = steps[0].double()
    for t in range(1, 30):
        _update(0.6, averaged, [steps[t]], torch.tensor(t))
        decay = min(0.6, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * steps[t].double()
    torch.testing.assert_close(averaged[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_the_best_epoch_is_kept(panel):
    """A learning rate that destroys what the first epochs learned."""
    model = small_model()
    scores = []
    model.on_validation_end = lambda: scores.append(float(model.trainer.callback_metrics["val_loss"]))
    model.schedule = dataclasses.replace(model.schedule, learning_rate=0.5, warm_up=0.9)
    loss = fit(model, small_data(panel), max_epochs=6, patience=6, seed=0)
    assert loss == min(scores) < scores[-1]
    assert evaluate(model, small_data(panel).val_dataloader())["loss"] == pytest.approx(loss, rel=1e-6)


def test_every_score_is_logged_and_may_be_watched(panel):
    model = small_model(objective=LogScore() + 0.5 * FZ0((0.975,)) + CRPS())
    logged = []
    model.on_validation_end = lambda: logged.append(dict(model.trainer.callback_metrics))
    best = fit(model, small_data(panel), max_epochs=1, patience=1, monitor="val_fz0", seed=0)
    assert best == min(float(metrics["val_fz0"]) for metrics in logged)
    for metrics in logged:
        total = metrics["val_log_score"] + 0.5 * metrics["val_fz0"] + metrics["val_crps"]
        torch.testing.assert_close(metrics["val_loss"], total)
    with pytest.raises(
        ValueError, match="monitor 'val_pinball' is not .* it has val_loss, val_log_score, val_fz0, val_crps"
    ):
        fit(model, small_data(panel), monitor="val_pinball")


def test_evaluation_is_the_weighted_mean_over_the_windows(panel):
    model = small_model().eval()
    data = small_data(panel)
    window = WindowSource(panel, SPEC).gather(data.validation.entries, known_by=data.validation.known_by)
    losses, weight = model.losses(window, CRPS())
    scores = evaluate(model, data.val_dataloader(), CRPS())
    assert scores.keys() == {"loss", "crps"}
    assert scores["crps"] == pytest.approx(((weight * losses["crps"]).sum() / weight.sum()).item(), rel=1e-5)


def test_a_horizon_counts_in_inverse_proportion_to_its_length(panel):
    model = small_model().eval()
    source = WindowSource(panel, SPEC)
    window = source.gather(source.entries()[:50])
    law = model(window)
    scale = window.scale[:, None]
    losses = -(law.log_prob(window.target) + scale.log())
    weight = window.target_mask / torch.tensor([1.0, 3.0])
    expected = (weight * losses).sum() / weight.sum()
    torch.testing.assert_close(model.mean_loss(window), expected)


class Poisoned(torch.nn.Module):
    """Makes the degrees of freedom of windows with a large last input NaN."""

    def __init__(self, head):
        super().__init__()
        self.head, self.horizons = head, head.horizons

    def parameters_of(self, hidden):
        df, *others = self.head.parameters_of(hidden)
        return torch.where(hidden[..., :1] == hidden[..., :1].amax(), torch.nan, df), *others

    def distribution(self, *parameters):
        from qtorch.distributions import SkewedStudentT

        return SkewedStudentT(*parameters, validate_args=False)


@pytest.mark.parametrize("layout", ["asset", "panel"])
def test_a_loss_that_is_not_finite_names_epoch_step_and_assets(panel, layout):
    from tests.training.runs import Across

    model = small_model(encoder=None if layout == "asset" else Across(len(SPEC.features)))
    model.network.head = Poisoned(model.network.head)
    with pytest.raises(FloatingPointError) as error:
        fit(model, small_data(panel, layout, every_position=False), max_epochs=2)
    text = str(error.value)
    assert "the training loss is not finite at epoch 0, step 0: " in text
    named = text.split("of the assets ")[1].split(". If all")[0].split(", ")
    assert 1 <= len(named) <= 2
    assert set(named) <= set(panel.assets)
    assert "some of the batch" in text


def test_heads_compute_in_float32_under_bf16(panel):
    model = small_model()
    source = WindowSource(panel, SPEC)
    window = source.gather(source.entries()[:20])
    model.eval()
    exact = model.network(window.inputs, window.mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.network(window.inputs, window.mask)
        losses, _ = model.losses(window)
    assert all(parameter.dtype == torch.float32 for parameter in mixed)
    assert losses["loss"].dtype == torch.float32
    # The encoder's last digits are bfloat16's; the head's are not, as it takes these and adds no rounding of its own.
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.network.encoder(window.inputs, window.mask)[:, -1]
    for a, b, c in zip(mixed, model.network.head.parameters_of(hidden.float()), exact, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=0.1, atol=0.05)


def test_it_trains_in_bf16(panel):
    losses = []
    for precision in ("bf16-mixed", "32-true"):
        model = small_model()
        losses.append(fit(model, small_data(panel), max_epochs=2, precision=precision, accelerator="cpu", seed=5))
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
