"""A model card: what a saved model says of itself, for people."""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from qtorch.data.errors import listing
from qtorch.data.window import WindowSpec
from qtorch.deploy.bundle import described, inspect_bundle
from qtorch.deploy.description import BundleError
from qtorch.deploy.schema import inputs_of
from qtorch.errors import ArgumentError
from qtorch.training import Allocator, Forecaster
from qtorch.training.trained_on import TrainedOn

TAGS = ("finance", "time-series", "risk", "value-at-risk", "expected-shortfall", "pytorch", "safetensors")
PLACE = "path/to/model"
_ASSETS = 20  # that are named
_UNKNOWN = "not known"


def model_card(
    model: Forecaster | Allocator | str | Path, *, license: str | None = None, repository: str | None = None
) -> str:
    """A card in Markdown with a YAML head, as the Hugging Face Hub shows it, of what is known of a model.

    Nothing is made up: what the model does not know, because it was not trained by a `fit` or nobody gave metrics, is
    said to be not known.

    Args:
        model: a model, or the folder of a saved one, whose card has its digests, metrics and versions too.
        license: its identifier on the Hub, such as ``"apache-2.0"``; None leaves it to you.
        repository: its name on the Hub, for the lines that load it; None shows how to load a folder.

    Raises:
        BundleError: the folder holds no usable bundle.
        TypeError: a part of the model is not of plain values.

    Example:
        >>> from qtorch.data import Panel, load_sample
        >>> from qtorch.models import default_forecaster
        >>> panel = Panel.from_frame(load_sample().query("date > '2022'")).select(["AAPL", "EURUSD"])
        >>> card = model_card(default_forecaster(panel, horizons=(1,)))
        >>> "| scaled_return_0.94 | volatilities of a session |" in card, "Universe: not known" in card
        (True, True)
    """
    if not isinstance(model, str | Path):
        return _card(described(model), license, repository)
    try:
        return _card(inspect_bundle(model), license, repository)
    except (LookupError, TypeError, AttributeError, ArgumentError) as error:
        raise BundleError(
            f"{model}: its description is not one that qtorch writes ({error!r}). Save it anew."
        ) from error


def _card(about: Mapping[str, Any], license: str | None, repository: str | None) -> str:
    fits = [TrainedOn.from_dict(each) for each in about["trained_on"]]
    spec = WindowSpec.from_dict(about["windows"])
    blocks = [
        f"---\n{_head(about, fits, license)}---",
        f"# {_name(about)}",
        *_what(about, spec),
        "## Inputs",
        *_inputs(spec),
        "## Training",
        *_training(about, fits),
        "## Scores",
        *_scores(about, fits),
        "## Limits",
        *_limits(fits),
        "## Load it",
        *_loading(about, repository),
        "## Versions and digests",
        *_versions(about),
    ]
    return "\n\n".join(blocks) + "\n"


def _name(about: Mapping[str, Any]) -> str:
    one, other = ("encoder", "head") if about["kind"] == Forecaster.__name__ else ("network", "allocation")
    return _cell(f"{about['kind']}: {_class(about[one])}, {_class(about[other])}")


def _head(about: Mapping[str, Any], fits: Sequence[TrainedOn], license: str | None) -> str:
    head: dict[str, Any] = {"library_name": "qtorch", "tags": [*TAGS, about["kind"].lower()]}
    if license is not None:
        head["license"] = license
    if fits and fits[-1].scores:
        last = fits[-1]
        data = {
            "type": "qtorch.data.Panel",
            "name": f"{len(last.assets)} assets, validated to {last.validated_through}",
        }
        scores = [{"type": name, "name": name, "value": value} for name, value in last.scores.items()]
        result = {"task": {"type": "time-series-forecasting"}, "dataset": data, "metrics": scores}
        head["model-index"] = [{"name": _name(about), "results": [result]}]
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True)


def _what(about: Mapping[str, Any], spec: WindowSpec) -> Iterator[str]:
    if about["kind"] == Forecaster.__name__:
        sees = "one asset's own" if about["layout"] == "asset" else "the whole market's"
        yield (
            f"A [qtorch](https://pypi.org/project/qtorch-finance/) forecaster. From {sees} last {spec.context} "
            f"sessions it gives, for each asset, a probability distribution of simple returns (decimals, 0.01 is 1 %) "
            f"over {_horizons(spec)}. Value at risk, expected shortfall, quantiles and samples come from that "
            "distribution; value at risk and expected shortfall are positive losses at a confidence level."
        )
    else:
        settings = about["settings"]
        yield (
            f"A [qtorch](https://pypi.org/project/qtorch-finance/) allocator. From each asset's last {spec.context} "
            f"sessions it gives portfolio weights, trained for a decision every {_cell(settings['every'])} rows. An "
            f"asset needs {_cell(settings['min_history'])} returns to be given a weight."
        )
    parts = [name for name in ("encoder", "head", "network", "allocation") if name in about]
    yield _table(("part", "class"), ((part, about[part]["class_path"]) for part in parts))


def _inputs(spec: WindowSpec) -> Iterator[str]:
    inputs = inputs_of(spec)  # not what a file says of them, which nothing that computes reads
    columns = [(each.name, each.unit, each.source, each.what) for each in inputs]
    yield f"In the order of the last axis, {len(columns)} of them:"
    yield _table(("input", "unit", "from", "what it is"), columns)
    yield (
        "The mask is boolean, and True means usable: the market was open and the asset has a price. What is masked is "
        f"0 and changes nothing. The first {spec.features.first_usable} returns of an asset are masked. Returns are "
        f"seen and predicted in units of a causal EWMA volatility (decay {spec.features.scale_decay:g})."
    )
    effects = listing([_cell(each.name) for each in inputs if each.source == "calendar"], most=10) or "none"
    yield f"Inputs that come from exchanges' calendars: {effects}."


def _training(about: Mapping[str, Any], fits: Sequence[TrainedOn]) -> Iterator[str]:
    if not fits:
        yield f"- Universe: {_UNKNOWN}\n- Exchanges: {_UNKNOWN}\n- Training span: {_UNKNOWN}"
        return
    for number, fit in enumerate(fits, 1):
        validated = "none" if fit.validated_through is None else f"to {_cell(fit.validated_through)}"
        lines = (
            f"Universe: {len(fit.assets):,} assets, {_cell(listing(sorted(fit.assets), most=_ASSETS))}",
            f"Exchanges (MIC): {_cell(', '.join(fit.exchanges))}",
            f"Training span: {_cell(fit.first)} to {_cell(fit.through)}",
            f"Validation: {validated}",
            f"The last row known: {_cell(fit.as_of)} (UTC)",
            f"Fields of the panel: {_cell(', '.join(fit.fields))}",
        )
        yield (f"Fit {number} of {len(fits)}:\n\n" if len(fits) > 1 else "") + "\n".join(f"- {line}" for line in lines)


def _scores(about: Mapping[str, Any], fits: Sequence[TrainedOn]) -> Iterator[str]:
    rows = [(name, f"{value:.6g}", "given by whoever saved the model") for name, value in about["metrics"].items()]
    if fits:
        of = f"best on validation to {fits[-1].validated_through}; it decided when training stopped"
        rows += [(name, f"{value:.6g}", of) for name, value in fits[-1].scores.items()]
    yield _table(("score", "value", "of"), rows) if rows else f"Scores: {_UNKNOWN}."


def _limits(fits: Sequence[TrainedOn]) -> Iterator[str]:
    seen = ", ".join(sorted({code for fit in fits for code in fit.exchanges}))
    lines = [
        f"Exchanges that training saw: {_cell(seen) if seen else _UNKNOWN}. Of others, and of kinds of assets that it "
        "did not see, nothing is known.",
        "The past that it was trained on need not be like the future. Backtest it on dates after its training, and "
        "watch its exceedances (`qtorch.risk.backtests`).",
        "A score on validation is a little too good, as it chose the moment at which training stopped.",
    ]
    if fits:
        last = fits[-1].validated_through or fits[-1].through
        lines.append(f"A backtest of it on dates up to {_cell(last)} is not out of sample.")
    yield "\n".join(f"- {line}" for line in lines)


def _loading(about: Mapping[str, Any], repository: str | None) -> Iterator[str]:
    name = repository or PLACE
    allowed = sorted({path.split(".")[0] for path in _class_paths(about)} - {"qtorch"})
    options = [f'"{name}"']
    if about["kind"] == Allocator.__name__:
        options.append("qtorch.Allocator" if repository is None else "kind=qtorch.Allocator")
    options += [f"allow={allowed}"] * bool(allowed) + [f'sha256="{about.get("sha256")}"'] * ("sha256" in about)
    function = "deploy.load" if repository is None else "hub.from_pretrained"
    place = "from qtorch import deploy" if repository is None else "from qtorch.deploy import hub"
    yield f"```python\nimport qtorch\n{place}\n\nmodel, metadata = {function}({', '.join(options)})\n```"
    yield (
        "With `sha256` that model is loaded and no other; without it, the files are only checked against themselves, "
        "which tells damage and not a foe. Nothing is unpickled."
    )
    if allowed:
        yield f"It is made of classes of {_cell(', '.join(allowed))}, which must be installed."


def _versions(about: Mapping[str, Any]) -> Iterator[str]:
    digests = [("SHA-256 of the bundle", about.get("sha256")), ("of its weights", about.get("weights_sha256"))]
    rows = [*about["versions"].items(), *((name, value or "not saved yet") for name, value in digests)]
    yield _table(("what", "version"), rows)


def _horizons(spec: WindowSpec) -> str:
    many = ", ".join(map(str, spec.horizons))
    return f"{many} session{'s' * (spec.horizons != (1,))} of its exchange"


def _class_paths(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        yield from (value for key, value in part.items() if key in ("class_path", "feature") and isinstance(value, str))
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _class_paths(each)


def _class(spec: Mapping[str, Any]) -> str:
    return str(spec["class_path"]).rpartition(".")[2]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    """A text that is nothing but text, in a table and in HTML."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|").replace("`", "'")
