"""Docstrings as the site shows them: names of the package are links, and an example is code."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

NAME = re.compile(r"(?<![`\[\w])`([A-Za-z_]\w*(?:\.\w+)*)`(?![`\]])")
EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)  # the parser's own heading for code is Examples


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of a package when it has been read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Of all objects that are defined in it."""
        _export_functions_named_as_their_files(pkg)
        public = _public(pkg)
        _rewrite(pkg, public | {path for path in _methods(pkg) if path.rpartition(".")[0] in public})


def _export_functions_named_as_their_files(package: griffe.Module) -> None:
    """After ``from package.fit import fit`` the package's `fit` is the function; a parser of files sees the file."""
    for name in package.exports or ():
        member = package.members.get(str(name))
        if isinstance(member, griffe.Module) and str(name) in member.members:
            package.set_member(str(name), griffe.Alias(str(name), member.members[str(name)], parent=package))
    for member in list(package.members.values()):
        if isinstance(member, griffe.Module):
            _export_functions_named_as_their_files(member)


def _public(package: griffe.Module) -> set[str]:
    """Paths of what has a place in the reference: of each room, and of all that it exports, there and where defined."""
    found = {package.path} if package.is_init_module else set()
    for name in package.exports or ():
        member = package.members[str(name)]
        found |= {f"{package.path}.{name}"}
        if member.is_alias:
            found |= {member.target_path}
    for member in package.members.values():
        if isinstance(member, griffe.Module):
            found |= _public(member)
    return found


def _methods(found: griffe.Object) -> Iterator[str]:
    """Paths of methods that have a docstring, and so a place of their own."""
    for member in found.members.values():
        if not member.is_alias:
            if isinstance(found, griffe.Class) and member.is_function and member.docstring is not None:
                yield member.path
            yield from _methods(member)


def _rewrite(found: griffe.Object, public: set[str]) -> None:
    if found.docstring is not None:
        found.docstring.value = NAME.sub(
            lambda match: _linked(match[1], found, public), EXAMPLE.sub("Examples:", found.docstring.value)
        )
    for member in found.members.values():
        if not member.is_alias:
            _rewrite(member, public)


def _linked(name: str, place: griffe.Object, public: set[str]) -> str:
    """The name, linked if it is public; unless its own docstring says it."""
    first, *rest = name.split(".")
    try:
        path = name if first == "qtorch" else ".".join([place.resolve(first), *rest])
    except griffe.NameResolutionError:
        return f"`{name}`"
    return f"[`{name}`][{path}]" if path in public and path != place.path else f"`{name}`"
