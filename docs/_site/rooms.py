"""Pages of the reference: one for each room of qtorch, with every name that its `__init__` exports."""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"qtorch.nightly.config.NightlyConfig"}  # on the page of configurations, with its parts


def exported(room: str) -> dict[str, str]:
    """By each public name of a room, where it is defined; empty for what is a room itself.

    Public are the names of ``__all__`` and those that are imported under themselves (``X as X``) for type checking
    alone: classes that need an extra, which the room imports when they are named.

    Raises:
        ValueError: a name is not imported from anywhere, or the room has no ``__all__``.
    """
    tree = ast.parse((ROOT / room.replace(".", "/") / "__init__.py").read_text())
    origins, names, late = {}, None, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            origins |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            imports = [each for each in node.body if isinstance(each, ast.ImportFrom)]
            late |= {alias.name for each in imports for alias in each.names if alias.asname == alias.name}
    if names is None or not set(names) <= set(origins):
        raise ValueError(
            f"{room}: __all__ is missing, or names what is not imported: {set(names or ()) - set(origins)}."
        )
    found = {}
    for name in sorted({*names, *late}):
        module, _, own = origins[name].rpartition(".")
        if (ROOT / origins[name].replace(".", "/") / "__init__.py").exists():
            continue
        through = (ROOT / module.replace(".", "/") / "__init__.py").exists() and module != room
        found[name] = exported(module)[own] if through else origins[name]
    return found


def rooms() -> list[str]:
    """All packages, those that are inside others after them."""
    folders = sorted(path.parent for path in (ROOT / "qtorch").rglob("__init__.py"))
    return [".".join(folder.relative_to(ROOT).parts) for folder in folders]


def page_of(room: str) -> str:
    """Its page."""
    return f"reference/{room}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the rooms in the navigation."""
    for section in config.nav or []:
        if "Reference" in section:
            section["Reference"] += [{room: page_of(room)} for room in rooms()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each; what several rooms export is on the page of the innermost, and linked from the others."""
    home = {}
    for room in rooms():
        for definition in exported(room).values():
            kept = home.get(definition)
            if kept is None or room.count(".") > kept.count("."):
                home[definition] = room
    for room in rooms():
        names = exported(room)
        here = [name for name, definition in names.items() if home[definition] == room and definition not in ELSEWHERE]
        there = [(name, definition) for name, definition in names.items() if name not in here]
        lines = [
            f"# {room} {{#{room}}}",
            "",
            f"::: {room}",
            "    options:",
            f"      members: {sorted(here)}" if here else "      members: false",
        ]
        if there:
            lines += ["", "## Elsewhere in the reference", ""]
            lines += [f"- `{room}.{name}` is [`{definition}`][{definition}]" for name, definition in there]
        files.append(File.generated(config, page_of(room), content="\n".join(lines) + "\n"))
    return files
