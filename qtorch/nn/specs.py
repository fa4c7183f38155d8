"""Modules as plain text and back: a class's import path and its constructor's arguments."""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from qtorch.errors import ArgumentError

Spec = dict[str, Any]


def describe(module: nn.Module) -> Spec:
    """The class path and constructor arguments of a module that keeps each argument in an attribute of its name.

    An argument that is a module, or a list of them, which may be kept as a `ModuleList`, is described in the same way.

    Raises:
        TypeError: an argument is not kept, or is not made of modules, str, int, float, bool, None, lists and dicts.
    """
    kind = type(module)
    arguments = {}
    for name in inspect.signature(kind).parameters:
        if not hasattr(module, name):
            raise TypeError(f"{kind.__name__} does not keep its argument {name!r} in an attribute of that name.")
        arguments[name] = _plain(getattr(module, name), f"{kind.__name__}.{name}")
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}


def build(spec: Spec, *, allow: Iterable[str] = (), **arguments: Any) -> nn.Module:
    """A fresh module from `{class_path, init_args}`; only classes of qtorch and of allowed packages are imported.

    Args:
        spec: as of `describe`, or as written in a configuration; an argument that is itself such a spec, or a list
            of them, is built first.
        allow: further packages whose classes may be named, such as ``"mydesk.models"``.
        **arguments: given beside `init_args`, which may not repeat them with another value. They go to the module and
            to those that its `init_args` describe in the same way, as far as these take them.

    Raises:
        ValueError: the class is not allowed, does not exist or is no module, or its arguments do not fit.
    """
    path, kind = _module(spec, allow)
    given = dict(spec.get("init_args") or {})
    theirs: set[str] = set()

    def built(part: Any) -> Any:
        if isinstance(part, list):
            return [built(each) for each in part]
        if not (isinstance(part, dict) and "class_path" in part):
            return part
        takes = inspect.signature(_module(part, allow)[1]).parameters
        inner = {name: value for name, value in arguments.items() if name in takes}
        theirs.update(inner)
        return build(part, allow=allow, **inner)

    given = {key: built(part) for key, part in given.items()}
    for key, value in arguments.items():
        if key in theirs and key not in inspect.signature(kind).parameters:
            continue
        if _plain(given.setdefault(key, value), key) != _plain(value, key):
            raise ArgumentError(f"{path}: init_args give {key}={given[key]!r}, but the windows need {value!r}.")
    return _call(path, kind, given)


def construct(what: Spec, *, allow: Iterable[str] = (), **arguments: Any) -> Any:
    """What a class, a function or a class's method gives for the `init_args` of `{class_path, init_args}`.

    Args:
        what: as written in a configuration, such as ``{"class_path": "qtorch.training.HideInputs.by_kind"}``.
        allow: as of `build`.
        **arguments: given beside `init_args`, which may not name them.

    Raises:
        ValueError: it is not allowed, does not exist or can't be called, or its arguments do not fit.
    """
    path, kind = _named(what, allow, "a class_path is needed, such as qtorch.training.HideInputs.by_kind")
    if not callable(kind):
        raise ArgumentError(f"class_path {path!r} is no class or function.")
    given = dict(what.get("init_args") or {})
    if twice := given.keys() & arguments.keys():
        raise ArgumentError(f"{path}: init_args give {', '.join(sorted(twice))}, which the job gives itself.")
    return _call(path, kind, given | arguments)


def named(what: Spec, *, allow: Iterable[str] = ()) -> Any:
    """What the class path of `{class_path, init_args}` names; for checks before it is needed.

    Raises:
        ValueError: it is not allowed or does not exist.
    """
    return _named(what, allow, "a class_path is needed")[1]


def _module(spec: Spec, allow: Iterable[str]) -> tuple[str, type[nn.Module]]:
    path, kind = _named(spec, allow, "a model needs a class_path such as qtorch.models.Transformer")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ArgumentError(f"class_path {path!r} is not a torch.nn.Module.")
    return path, kind


def _named(spec: Spec, allow: Iterable[str], needed: str) -> tuple[str, Any]:
    """The class path of a spec and what stands there: in a module, or in a class of one."""
    path = spec.get("class_path")
    if not isinstance(path, str) or "." not in path:
        raise ArgumentError(f"{needed}, not {path!r}.")
    packages = ("qtorch", *allow)
    if not any(path.startswith(f"{package}.") for package in packages):
        raise ArgumentError(f"class_path {path!r} is outside the allowed packages ({', '.join(packages)}).")
    module, _, name = path.rpartition(".")
    try:
        try:
            owner: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # the module is there, but not one that it needs
                raise
            outer, _, kind = module.rpartition(".")
            owner = getattr(importlib.import_module(outer), kind) if outer else None
            if not isinstance(owner, type):
                raise
        return path, getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f"class_path {path!r} does not exist: {error}.") from error


def _call(path: str, kind: Any, given: dict[str, Any]) -> Any:
    try:
        return kind(**given)
    except TypeError as error:
        raise ArgumentError(f"{path}: {error}. It takes {inspect.signature(kind)}.") from error


def _plain(value: Any, where: str) -> Any:
    if type(value) is nn.ModuleList:
        return [describe(item) for item in value]
    if isinstance(value, nn.Module):
        return describe(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which a bundle cannot hold; use plain values.")
