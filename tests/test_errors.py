"""How our errors look in a notebook: a real IPython shell runs the cells."""

import subprocess
import sys

import pytest
from IPython.core.interactiveshell import InteractiveShell

from qtorch.data import DataError
from qtorch.data.errors import listing
from qtorch.deploy import BundleError, load
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError


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
        "All frames: import sys, traceback; traceback.print_exception(sys.last_value)",
    ]
    text = shown("Panel.from_frame(pd.DataFrame())")
    assert "    Panel.from_frame(pd.DataFrame())\nDataError: the frame is empty" in text
    assert "qtorch/data" not in text


def test_all_frames_are_a_line_away(shell, capsys):
    shell.run_cell("from qtorch.models import Garch\nGarch(window=20)", store_history=True)
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("All frames: ")
    shell.run_cell(line, store_history=True)
    assert "distributions/checks.py" in capsys.readouterr().err


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
