"""The committed notebooks with their outputs as pages; none is run here."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

FOLDER = Path(__file__).parents[2] / "notebooks"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists them in the navigation; without one the section goes."""
    pages = [f"notebooks/{path.stem}.md" for path in sorted(FOLDER.glob("*.ipynb"))]
    nav = [section for section in config.nav or [] if "Notebooks" not in section]
    if pages:
        place = next(k for k, section in enumerate(config.nav or []) if "Notebooks" in section)
        nav.insert(place, {"Notebooks": pages})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each, and its pictures."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        text, resources = MarkdownExporter().from_filename(str(path))
        # One picture's name is another's in the next notebook, and a table without a class is wider than the page.
        for name, picture in resources["outputs"].items():
            own = f"{path.stem}_{posixpath.basename(name)}"
            text = text.replace(f"]({name})", f"]({own})")
            files.append(File.generated(config, f"notebooks/{own}", content=picture))
        text = re.sub(r"!\[(?:png|svg)\]", "![Output of the code above]", text)
        text = re.sub(r"<style scoped>.*?</style>", "", text, flags=re.DOTALL).replace(' border="1"', "")
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files
