import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from qtorch import models
from qtorch.cli import main
from qtorch.command_parsers import fit_parser
from qtorch.configuration import ModelConfig, TrainingConfig, make_forecaster
from qtorch.data import DataModule, Panel, WindowSpec
from qtorch.deploy import load
from qtorch.fitting import FitConfig, FitData, FitTraining, run
from qtorch.training import CRPS, Forecaster, LogScore, Schedule, fit
from tests.conftest import make_prices
from tests.training.runs import EXCHANGES, same_weights

SMALL = {"class_path": "qtorch.models.Transformer", "init_args": {"width": 8, "depth": 1, "heads": 2}}


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    path = tmp_path_factory.mktemp("prices") / "prices.parquet"
    make_prices(EXCHANGES, "2018-01-04", "2019-12-30", 2).to_parquet(path)
    return path


@pytest.fixture
def config(prices, tmp_path):
    """A YAML file with relative paths, beside its data."""
    (tmp_path / "prices.parquet").write_bytes(prices.read_bytes())
    text = {
        "data": {
            "path": "prices.parquet",
            "validation_start": "2019-06-03",
            "test_start": "2019-09-02",
        },
        "model": {"encoder": SMALL, "context": 8, "horizons": [1, 3]},
        "training": {
            "objective": {
                "class_path": "qtorch.training.Mix",
                "init_args": {
                    "objectives": [
                        {"class_path": "qtorch.training.LogScore"},
                        {"class_path": "qtorch.training.FZ0", "init_args": {"levels": [0.975]}},
                    ],
                    "weights": [1.0, 0.5],
                },
            },
            "schedule": {"learning_rate": 0.01},
            "averaging": 0.5,
            "batch_size": 8,
            "batches_per_epoch": 3,
            "max_epochs": 2,
            "accelerator": "cpu",
            "seed": 3,
        },
        "output": "model",
    }
    path = tmp_path / "fit.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(["fit", *map(str, arguments)])
    return end.value.code


def settings(prices, output, **training) -> FitConfig:
    return FitConfig(
        FitData(str(prices), validation_start="2019-06-03", test_start="2019-09-02"),
        ModelConfig(encoder=SMALL, context=8, horizons=[1, 3]),
        FitTraining(batch_size=8, batches_per_epoch=3, max_epochs=2, accelerator="cpu", **training),
        str(output),
    )


def test_it_saves_a_model_and_says_its_scores(config, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert call("--config", config) == 0
    lines = capsys.readouterr().out.splitlines()
    said = {line.split()[0]: line.split()[1] for line in lines}
    assert said.keys() == {"val_loss", "val_log_score", "val_fz0", "model"}
    loss, log_score, fz0 = (float(said[name]) for name in ("val_loss", "val_log_score", "val_fz0"))
    assert loss == pytest.approx(log_score + 0.5 * fz0, abs=2e-5)
    model, about = load(tmp_path / "model")
    assert about["validation"]["loss"] == pytest.approx(loss, abs=1e-5)
    assert about["objective"].startswith("Mix(objectives=(LogScore(), FZ0(levels=(0.975,))), weights=(1.0, 0.5))")
    assert (about["trained_through"], about["validated_through"]) == ("2019-05-31", "2019-08-30")
    panel = Panel.from_parquet(tmp_path / "prices.parquet")
    assert model.forecast(panel, panel.dates[-1]).mask.all()
    assert not (tmp_path / "model" / "checkpoints").exists()
    assert call("--config", config, "--output", "mine", "--training.objective", "qtorch.training.LogScore") == 0
    assert (here / "mine" / "model.json").exists()


def test_a_run_that_broke_off_goes_on_if_asked(prices, tmp_path, monkeypatch, capsys):
    """As the unbroken one ends, with the same weights."""

    def fatal(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise InterruptedError

    unbroken = run(settings(prices, tmp_path / "a"), say=lambda line: None)
    with monkeypatch.context() as patch:
        patch.setattr(Forecaster, "on_train_batch_start", fatal)
        with pytest.raises(InterruptedError):
            run(settings(prices, tmp_path / "b"))
    with pytest.raises(ValueError, match="holds a run that was broken off. Go on with --resume"):
        run(settings(prices, tmp_path / "b"))
    said = []
    assert run(settings(prices, tmp_path / "b"), resume=True, say=said.append) == unbroken
    assert len(said) == 2
    weights = [json.loads((tmp_path / name / "model.json").read_text())["weights_sha256"] for name in "ab"]
    assert weights[0] == weights[1]
    run(settings(prices, tmp_path / "c"), resume=True, say=lambda line: None)  # there is nothing to go on from


def test_an_encoder_of_all_assets_gets_their_windows(prices, tmp_path):
    config = settings(prices, tmp_path / "model", objective=LogScore() + CRPS())
    config.model = ModelConfig(
        encoder={"class_path": "tests.training.runs.LastOfAll"}, context=8, horizons=[1, 3], allow=["tests"]
    )
    scores = run(config, say=lambda line: None)
    assert scores.keys() == {"loss", "log_score", "crps"}
    model, _ = load(tmp_path / "model", allow=["tests"])
    assert model.network.layout == "panel"
    torch.testing.assert_close(scores["loss"], scores["log_score"] + scores["crps"])


def test_each_end_has_its_code_and_says_why(config, capsys):
    def said(code: int, *arguments) -> str:
        assert call("--config", config, *arguments) == code
        return capsys.readouterr().err

    assert "no such file" in said(4, "--data.path", "absent.parquet")
    assert "validation_start 2031-01-01" in said(4, "--data.validation_start", "2031-01-01")
    assert "outside the allowed packages" in said(2, "--model.head", '{"class_path": "os.path.join"}')
    assert "it has val_loss, val_log_score, val_fz0" in said(2, "--training.monitor", "val_crps")
    assert "colour" in said(2, "--training.colour", "3")
    assert "give a positive number" in said(2, "--training.schedule.learning_rate", "-1")
    (config.parent / "model" / "checkpoints").mkdir(parents=True)
    assert "Go on with --resume" in said(2)


EXAMPLE = Path(__file__).parents[1] / "data" / "fit.yaml"


def instantiated(path) -> FitConfig:
    parser = fit_parser()
    return parser.instantiate(parser.parse_args(["--config", str(path)]))


def test_the_example_trains_the_default_forecaster(panel):
    config = instantiated(EXAMPLE)
    torch.manual_seed(0)
    made = make_forecaster(config.model, config.training, config.model.windows(panel))
    torch.manual_seed(0)
    default = models.default_forecaster(panel)
    assert made.spec == default.spec
    assert type(made.network.encoder) is type(default.network.encoder)
    assert made.network.encoder.input_noise == default.network.encoder.input_noise
    assert same_weights(made, default)
    for part in ("schedule", "objective", "augmentation", "weight_decay"):
        assert repr(getattr(made, part)) == repr(getattr(default, part))
    data, options = inspect.signature(DataModule).parameters, inspect.signature(fit).parameters
    assert config.data.validation_start is None
    for name in ("batch_size", "batches_per_epoch", "sample_by", "half_life"):
        assert getattr(config.training, name) == data[name].default
    for name in ("max_epochs", "patience", "averaging", "precision", "monitor", "compile"):
        assert getattr(config.training, name) == options[name].default


def test_the_examples_comments_are_settings(panel, tmp_path):
    text = re.sub(r"^( +)# ", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert not re.search(r"^ +#", text, flags=re.MULTILINE)
    (tmp_path / "fit.yaml").write_text(text)
    config = instantiated(tmp_path / "fit.yaml")
    assert [score.name for _, score in config.training.objective.terms] == ["log_score", "fz0"]
    model = make_forecaster(config.model, config.training, config.model.windows(panel))
    assert isinstance(model.network.encoder, models.TemporalTransformer)
    assert len(model.spec.features) == 2
    assert model.schedule == Schedule(0.001, warm_up=0.1, final=0.01)
    assert model.augmentation.probability == 0.3


class Shifted:
    """An augmentation of one's own."""

    def __init__(self, spec: WindowSpec, by: float) -> None:
        self.inputs, self.by = len(spec.features), by

    def __call__(self, window):
        return dataclasses.replace(window, inputs=window.inputs + self.by)


def test_an_augmentation_is_named_by_its_path_or_left_out(panel):
    def made(augmentation, allow=()):
        training = TrainingConfig(augmentation=augmentation)
        return make_forecaster(ModelConfig(allow=list(allow)), training, windows).augmentation

    windows = ModelConfig().windows(panel)
    assert made(None) is None
    own = made({"class_path": "tests.test_fitting.Shifted", "init_args": {"by": 2.0}}, ["tests"])
    assert (own.inputs, own.by) == (len(windows.features), 2.0)
    for bad, words in (
        ({"class_path": "tests.test_fitting.Shifted"}, "outside the allowed packages"),
        ({"class_path": "qtorch.cli.sys.exit"}, "does not exist"),
        ({"class_path": "qtorch.training.HideInputs.nothing"}, "does not exist"),
        ({"class_path": "qtorch.training.HideInputs.by_kind", "init_args": {"colour": 1}}, "unexpected keyword"),
        ({"class_path": "qtorch.training.HideInputs.by_kind", "init_args": {"spec": 1}}, "which the job gives itself"),
    ):
        with pytest.raises(ValueError, match=words):
            made(bad)


def test_without_validation_all_before_the_test_is_trained_on(prices, tmp_path):
    said: list[str] = []
    config = FitConfig(
        FitData(str(prices), test_start="2019-09-02"),
        ModelConfig(SMALL, context=8, horizons=[1]),
        FitTraining(max_epochs=1, accelerator="cpu"),
        str(tmp_path / "model"),
    )
    assert run(config, say=said.append) == {}
    assert said == []
    _, about = load(tmp_path / "model")
    assert (about["trained_through"], about["validated_through"]) == ("2019-08-30", None)
