"""What the site takes from outside docs/: the changelog, results of benchmarks and files that pages point to."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def places() -> dict[str, str]:
    """Of each file outside docs/ that the site has, its path in the site by its path in the repository."""
    found = {"CHANGELOG.md": "changelog.md", "data/README.md": "reference/sample.md", "README.md": "index.md"}
    for name in ("data/nightly.yaml", "data/fit.yaml", "data/positions.csv"):
        found[name] = f"files/{Path(name).name}"
    for path in sorted((ROOT / "benchmarks/results").iterdir()):
        name = "choices.md" if path.name == "README.md" else path.name
        found[f"benchmarks/results/{path.name}"] = f"benchmarks/{name}"
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found[f"notebooks/{path.name}"] = f"notebooks/{path.stem}.md"
        found[f"notebooks/{path.stem}.py"] = f"notebooks/{path.stem}.md"
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        found.setdefault(f"notebooks/{path.name}", f"files/{path.name}")
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts every result of a benchmark, and how-to pages that the list does not name, into the navigation."""
    for section in config.nav or []:
        (title, entries), *_ = section.items()
        if title == "Benchmarks":
            entries += sorted(page for page in set(places().values()) if re.fullmatch(r"benchmarks/.*\.md", page))
        if title == "How-to":
            named = str(entries)
            pages = sorted(f"how-to/{path.name}" for path in (ROOT / "docs/how-to").glob("*.md"))
            entries += [page for page in pages if page not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them, but the README, whose place the front page has, and notebooks, which are not text yet."""
    for source, target in places().items():
        if source != "README.md" and not target.startswith("notebooks/"):
            files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that hold in the repository, where all these pages lie too, into links that hold in the site."""
    sources = {target: source for source, target in places().items() if source != "README.md"}
    here = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    by_source = places()

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[1]))
        inside = path.removeprefix("docs/") if path.startswith("docs/") else None
        target = by_source.get(path, inside)
        return match[1] if target is None else posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(moved, markdown)
