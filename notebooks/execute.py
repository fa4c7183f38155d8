"""Executes notebooks' sources in a fresh kernel each, and writes them with their outputs: execute.py [SOURCE ...]."""

import os
import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode, write

FOLDER = Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def executed(source: Path) -> NotebookNode:
    """A notebook with its outputs, and nothing in it that another run would change for no reason."""
    notebook = jupytext.read(source)
    where = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=1800, record_timing=False, coalesce_streams=True, resources=where).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code":
            cell["outputs"] = [output for output in cell.outputs if not is_progress_bar(output)]
    notebook["metadata"] = NotebookNode(
        jupytext={"formats": "ipynb,py:percent"}, kernelspec=KERNEL, language_info={"name": "python"}
    )
    return notebook


def is_progress_bar(output: NotebookNode) -> bool:
    """Whether an output is tqdm's bar, which is other text in every run."""
    return output.output_type == "stream" and output.name == "stderr" and "%|" in output.text


if __name__ == "__main__":
    os.environ.pop("QTORCH_NOTEBOOK_EPOCHS", None)
    for path in map(Path, sys.argv[1:] or sorted(map(str, FOLDER.glob("[0-9]*.py")))):
        write(executed(path), path.with_suffix(".ipynb"))
