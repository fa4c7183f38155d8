"""Cards say what is known, in text that is nothing but text, and how to load the model."""

import re

import pytest
import yaml

from qtorch.data import WindowSpec
from qtorch.data import features as f
from qtorch.deploy import BundleError, bundle_digest, inspect_bundle, model_card, save
from qtorch.deploy.schema import UNKNOWN, inputs_of
from qtorch.training import TrainedOn
from tests.deploy.conftest import edit
from tests.deploy.test_allocators import allocator


def head_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_card_says_what_the_bundle_knows(whole):
    card = model_card(whole, license="apache-2.0")
    head = head_of(card)
    assert head["library_name"] == "qtorch"
    assert head["license"] == "apache-2.0"
    assert head["model-index"][0]["results"][0]["metrics"] == [{"type": "val_loss", "name": "val_loss", "value": 1.25}]
    for said in (
        "Universe: 2 assets, AAA, EEE",
        "Exchanges (MIC): XECB, XNYS",
        "Training span: 2019-06-03 to 2019-07-31",
        "Validation: to 2019-08-30",
        "over 1, 5 sessions",
        "True means usable",
        "| test_crps | 0.5 | given by whoever saved the model |",
        "| gap_days | log of calendar days | calendar |",
        "calendars: gap_days, next_gap_days.",
        bundle_digest(whole),
        inspect_bundle(whole)["weights_sha256"],
    ):
        assert said in card, said


def test_the_lines_that_load_it_run(whole):
    (lines,) = re.findall(r"```python\n(.*?)```", model_card(whole), flags=re.DOTALL)
    names: dict = {}
    exec(lines.replace("path/to/model", str(whole)), names)
    assert names["metadata"] == {"desk": "rates"}


def test_what_is_not_known_is_not_made_up(model):
    card = model_card(model)
    for said in ("Universe: not known", "Training span: not known", "Scores: not known.", "not saved yet"):
        assert said in card
    assert "model-index" not in head_of(card)
    assert "license" not in head_of(card)


def test_an_allocators_card(tmp_path):
    save(allocator(), tmp_path)
    card = model_card(tmp_path)
    assert "gives portfolio weights, trained for a decision every 5 rows" in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict = {}
    exec(lines.replace("path/to/model", str(tmp_path)), names)
    assert names["model"].every == 5


def test_names_are_nothing_but_text(model):
    model.trained_on = (
        TrainedOn({"<script>|\n# x": "XNYS"}, "2020-01-01", "2020-02-01", None, "2020-02-01", ("close",), {}),
    )
    assert "&lt;script&gt;\\| # x" in model_card(model)


def test_a_card_of_what_qtorch_does_not_write_is_refused(bundle):
    edit(bundle, "trained_on", value=[1])
    with pytest.raises(BundleError, match="not one that qtorch writes"):
        model_card(bundle)


def test_a_card_tells_what_the_model_is_fed_not_what_a_forged_file_says_of_it(bundle):
    true = model_card(bundle).split("## Versions")[0]
    inputs = inspect_bundle(bundle)["inputs"]
    edit(bundle, "inputs", value=[each | {"unit": "percent", "what": "a lie", "source": "labels"} for each in inputs])
    edit(bundle, "calendars", value={"exchanges": ["XLIE"], "effects": ["a lie"]})
    forged = model_card(bundle).split("## Versions")[0]
    digest = bundle_digest(bundle)
    assert forged.replace(digest, "") == re.sub("[0-9a-f]{64}", "", true)


class Mine(f.Feature):
    @property
    def names(self):
        return ("mine",)

    def own(self, sessions):
        return sessions.returns[:, :, None]


@pytest.mark.parametrize(
    ("feature", "unit", "source"),
    [
        (f.Return(), "decimals (0.01 is 1 %)", "prices"),
        (f.Return(log=True), "log return", "prices"),
        (f.Log(f.Volatility()), "log of decimals a session (0.01 is 1 %)", "prices"),
        (f.Absolute(f.GapDays()), "log of calendar days", "calendar"),
        (f.Rolling(f.Return(), 5, "skew"), "ratio of moments", "prices"),
        (f.Rank(f.Return()), "from -1 to 1", "prices"),
        (f.Label("sector", ("energy",)), "1 or 0", "labels"),
        (f.WithIndicator(f.Field("volume")), "that of the panel's field volume", "prices"),
        (f.ToEvent("fomc", ("2022-11-02",)), "log of calendar days", "calendar"),
        (Mine(), UNKNOWN, "unknown"),
    ],
)
def test_units_and_sources(feature, unit, source):
    first, *_ = inputs_of(WindowSpec(features=f.Features((feature,))))
    assert (first.unit, first.source) == (unit, source)


def test_every_feature_has_a_unit():
    made = {name: getattr(f, name) for name in f.__all__}
    kinds = [kind for kind in made.values() if isinstance(kind, type) and issubclass(kind, f.Feature)]
    special = {"ToEvent": lambda: f.ToEvent("e", ("2022-11-02",))}
    for kind in kinds:
        if kind in (f.Feature, f.CrossSection):
            continue
        feature = special.get(kind.__name__, kind)()
        columns = inputs_of(WindowSpec(features=f.Features((feature,))))
        assert [each.name for each in columns] == list(feature.names)
        assert UNKNOWN not in {each.unit for each in columns}, kind
