"""What a sidecar must say, field by field: one that was forged and sealed anew is refused with what is wrong."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from qtorch.deploy.signature import Signature
from qtorch.errors import ArgumentError

Rule = tuple[Callable[[Any], bool], str]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_digest(value: Any) -> bool:
    return _is_text(value) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_class(value: Any) -> bool:
    return _is_object(value) and _is_text(value.get("class_path")) and _is_object(value.get("init_args"))


def _are_texts(value: Any) -> bool:
    return _is_object(value) and all(map(_is_text, value.values()))


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(map(_is_count, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


_TEXT: Rule = _is_text, "text"
_FLAG: Rule = (lambda value: isinstance(value, bool)), "true or false"
_OBJECT: Rule = _is_object, "an object"
_COUNT: Rule = _is_count, "a whole number from 1"
_DIGEST: Rule = _is_digest, "a SHA-256"
_CLASS: Rule = _is_class, "a class_path and init_args"

_FIELDS: dict[str, Rule] = {
    "device": (lambda value: value in ("cpu", "cuda", "mps", "xpu"), "cpu, cuda, mps or xpu"),
    "file_sha256": _DIGEST,
    "format": _COUNT,
    "kind": _TEXT,
    "metadata": _OBJECT,
    "model": _OBJECT,
    "options": _OBJECT,
    "sha256": _DIGEST,
    "signature": _OBJECT,
    "versions": (_are_texts, "an object of texts"),
}
_WINDOWS: dict[str, Rule] = {
    "context": _COUNT,
    "features": _OBJECT,
    "horizons": (_are_counts, "a list of whole numbers from 1"),
}
_MODELS: dict[str, dict[str, Rule]] = {
    "Forecaster": {
        "causal": _FLAG,
        "encoder": _CLASS,
        "gives": (lambda value: value in ("density", "parameters"), "density or parameters"),
        "head": _CLASS,
        "law_in_parameters": _FLAG,
        "layout": (lambda value: value in ("asset", "panel"), "asset or panel"),
        "windows": _OBJECT,
    },
    "Allocator": {
        "allocation": _CLASS,
        "costs": _OBJECT,
        "graphs": _OBJECT,
        "half_lives": (_are_numbers, "a list of numbers"),
        "kinds": (lambda value: type(value) is int and value >= 0, "a whole number"),
        "network": _CLASS,
        "settings": _OBJECT,
        "windows": _OBJECT,
    },
    "Flow": {"class_path": _TEXT},
}


def check(found: Mapping[str, Any]) -> None:
    """Refuses what is no description of an artefact.

    Raises:
        ValueError: a field is missing, unknown or not of its type.
    """
    _hold(found, _FIELDS, "it")
    signature = Signature.from_dict(found["signature"])
    model = dict(found["model"])
    kind = model.pop("kind", None)
    if not isinstance(kind, str) or kind not in _MODELS:
        raise ArgumentError(f"its model is of kind {kind!r}, which is none of {', '.join(_MODELS)}")
    _hold(model, _MODELS[kind], f"its model, a {kind},")
    if "windows" in model:
        _hold(model["windows"], _WINDOWS, "its model's windows")
    if "most" in found["options"]:
        letters = {axis for spec in signature.inputs for axis in spec.axes if isinstance(axis, str)}
        most = found["options"]["most"]
        _hold(most if isinstance(most, dict) else {}, dict.fromkeys(sorted(letters), _COUNT), "its options' most")


def _hold(found: Mapping[str, Any], rules: Mapping[str, Rule], what: str) -> None:
    for says, names in (("lacks", rules.keys() - found.keys()), ("has unknown", found.keys() - rules.keys())):
        if names:
            raise ArgumentError(f"{what} {says} {', '.join(sorted(names))}")
    for name, (holds, wanted) in rules.items():
        if not holds(found[name]):
            raise ArgumentError(f"{what} has as {name} {str(found[name])[:80]!r}, but {wanted} is needed")
