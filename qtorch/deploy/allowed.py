"""Which classes and functions a saved model may name."""

from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from torch import nn

from qtorch.errors import ArgumentError
from qtorch.nn.specs import named

# Not the whole package: importing some of its modules, or calling some of its functions, does something.
MODULES = ("qtorch.heads", "qtorch.models", "qtorch.nn", "qtorch.portfolio")
GRAPHS = ("qtorch.portfolio.graphs",)
FEATURES = ("qtorch.data.features",)
LARGEST = 1 << 20  # of the whole numbers given to our classes: some make lists of that length before any tensor


def check_modules(part: Any, allow: Iterable[str]) -> None:
    """Refuses a description of a module, with all in it, that names anything but allowed modules.

    Raises:
        ValueError: a name is not allowed, does not exist or is that of no module, or a size is absurd.
    """
    packages = (*MODULES, *allow)
    for spec in _specs(part):
        path = _within(spec, packages)
        kind = named(spec, allow=allow)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise ArgumentError(f"class_path {path!r} is not a torch.nn.Module")
        _within({"class_path": f"{kind.__module__}.{kind.__qualname__}"}, packages)
        if path.startswith("qtorch."):
            _check_sizes(path, spec["init_args"])


def check_function(spec: Any, allow: Iterable[str]) -> None:
    """Refuses a step of a graph builder that is no function of the graphs' or of an allowed package.

    Raises:
        ValueError: it is none.
    """
    packages = (*GRAPHS, *allow)
    path = _within(spec, packages)
    function = named(spec, allow=allow)
    if not isinstance(function, FunctionType):
        raise ArgumentError(f"class_path {path!r} is not a function")
    _within({"class_path": f"{function.__module__}.{function.__qualname__}"}, packages)


def check_features(part: Any, allow: Iterable[str]) -> None:
    """Refuses a description of inputs that names anything but allowed features.

    Raises:
        ValueError: a name is not allowed.
    """
    packages = (*FEATURES, *allow)
    for each in _dicts(part):
        if "feature" in each:
            _within({"class_path": each["feature"]}, packages)


def _within(spec: dict[str, Any], packages: tuple[str, ...]) -> str:
    path = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(path, str):
        raise ArgumentError(f"a class_path is needed, not {path!r}")
    if not any(path.startswith(f"{package}.") for package in packages):
        raise ArgumentError(f"class_path {path!r} is outside the allowed packages ({', '.join(packages)})")
    return path


def _specs(part: Any) -> Iterator[dict[str, Any]]:
    """The descriptions of modules in a part, itself one."""
    if not (isinstance(part, dict) and "class_path" in part):
        raise ArgumentError(f"a module needs a class_path and init_args, not {str(part)[:80]!r}")
    for each in _dicts(part):
        if "class_path" in each:
            if each.keys() != {"class_path", "init_args"} or not isinstance(each["init_args"], dict):
                raise ArgumentError(f"a module has a class_path and init_args, and not {sorted(each)}")
            yield each


def _dicts(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _dicts(each)


def _check_sizes(path: str, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        for each in value if isinstance(value, list) else [value]:
            if name != "seed" and isinstance(each, int) and abs(each) > LARGEST:
                raise ArgumentError(f"{path}: {name}={each} is above {LARGEST:,}")
