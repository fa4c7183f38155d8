"""How our errors look in a notebook: a real IPython shell runs the cells."""

import linecache
import re
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import qtorch
from qtorch.data import DataError
from qtorch.data.errors import listing
from qtorch.deploy import BundleError, load
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError

SOURCES = sorted(Path(qtorch.__file__).parent.rglob("*.py"))


@pytest.fixture(scope="module")
def shell():
    found = InteractiveShell.instance()
    found.colors = "nocolor"
    yield found
    InteractiveShell.clear_instance()


@pytest.fixture
def shown(shell, capsys):
    def run(cell: str) -> str:
        shell.run_cell(cell, store_history=True)
        return capsys.readouterr().out

    return run


def test_the_users_line_and_the_message_are_all(shown):
    shown("from qtorch.models import Garch\nimport pandas as pd\nfrom qtorch.data import Panel")
    text = shown("window = 20\ndef mine():\n    return Garch(window=window)\nmodel = mine()")
    number = text[text.index("In[") + 3 : text.index("]")]
    assert text.splitlines() == [
        f"Cell In[{number}], line 4",
        "    model = mine()",
        f"Cell In[{number}], line 3",
        "    return Garch(window=window)",
        "ArgumentError: least=250: give 50 to 20, the window.",
        "",
        "All frames: %tb Verbose",
    ]
    text = shown("Panel.from_frame(pd.DataFrame())")
    assert "    Panel.from_frame(pd.DataFrame())\nDataError: the frame is empty" in text
    assert "qtorch/data" not in text


def test_all_frames_are_a_line_away(shell, shown):
    text = shown("from qtorch.models import Garch\nGarch(window=20)")
    assert "checks.py" not in text
    assert "checks.py" in shown(text.splitlines()[-1].removeprefix("All frames: "))
    assert "checks.py" not in shown("%tb")
    shown("%xmode Verbose")
    try:
        assert "checks.py" in shown("Garch(window=20)")
    finally:
        shown("%xmode Context")


def test_notes_are_shown(shown):
    text = shown(
        "from qtorch.errors import ArgumentError\n"
        "try:\n    raise ArgumentError('no')\n"
        "except ArgumentError as error:\n    error.add_note('in the file desk.yaml')\n    raise"
    )
    assert "ArgumentError: no\nin the file desk.yaml\n" in text


def test_a_file_whose_name_begins_as_the_librarys_folder_is_the_users(shown):
    beside = f"{Path(qtorch.__file__).parent}_desk.py"  # that of a source checkout; it is only a name here
    code = "from qtorch.errors import ArgumentError\nraise ArgumentError('no')"
    linecache.cache[beside] = (len(code), None, code.splitlines(keepends=True), beside)
    try:
        text = shown(f"exec(compile({code!r}, {beside!r}, 'exec'))")
    finally:
        del linecache.cache[beside]
    assert f"{beside}, line 2\n    raise ArgumentError('no')\n" in text


def test_the_line_that_failed_in_a_users_own_function_is_shown(shown):
    shown("from qtorch.errors import ArgumentError\ndef signal():\n    return {}['no such']")
    text = shown(
        "try:\n    signal()\nexcept KeyError as error:\n    raise ArgumentError('the pipeline failed') from error"
    )
    assert (
        "line 3\n    return {}['no such']\ncaused by KeyError: 'no such'\nArgumentError: the pipeline failed\n" in text
    )


def test_every_exception_of_ours_is_brief():
    plain = re.compile(
        r"^class (\w+)\((?!BriefInNotebooks|RequestError|DataError)[^)]*(?:Error|Exception)\b", flags=re.MULTILINE
    )
    assert not [name for path in SOURCES for name in plain.findall(path.read_text())]


def test_no_plain_value_error_is_raised():
    assert not [path for path in SOURCES if "raise ValueError" in path.read_text()], "raise ArgumentError"


def test_errors_of_others_are_shown_as_ever(shown):
    text = shown("import torch\ntorch.zeros(2) @ torch.zeros(3)")
    assert "Traceback (most recent call last)" in text
    assert "All frames" not in text


def test_a_cause_is_named_and_a_message_is_cut(tmp_path):
    with pytest.raises(BundleError) as caught:
        load(tmp_path)
    lines = caught.value._render_traceback_()
    assert lines[-4].startswith("caused by FileNotFoundError: ")
    assert len("\n".join(DataError("x" * 10_000)._render_traceback_())) < 2200
    assert listing(range(1000)) == "0, 1, 2, 3, 4 and 995 more"


def test_an_argument_error_is_a_value_error_and_outside_notebooks_as_any_other():
    with pytest.raises(ValueError, match=r"level=2: give less\.") as caught:
        require(False, "level", 2, "give less")
    assert type(caught.value) is ArgumentError
    done = subprocess.run(
        [sys.executable, "-c", "from qtorch.errors import ArgumentError\nraise ArgumentError('no')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.endswith("qtorch.errors.ArgumentError: no\n")
    assert "Traceback (most recent call last)" in done.stderr
