"""The command line's own words: help, version, completion; what a command does is tested beside the command."""

import json
import subprocess
import sys
from shutil import which

import pytest

from qtorch import __version__, completion
from qtorch.cli import COMMANDS, main
from qtorch.command_parsers import check_parser, fit_parser, nightly_parser, serve_parser


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capsys.readouterr()
    return end.value.code, out, err


def test_help_goes_where_it_was_asked_for(capsys):
    code, asked, _ = call(capsys, "--help")
    assert code == 0
    assert all(f"\n  {command} " in asked for command in COMMANDS)
    assert max(map(len, asked.splitlines())) <= 80
    assert call(capsys) == (2, "", asked), "without a command"
    assert call(capsys, "help") == call(capsys, "help", "--help") == (0, asked, "")
    assert call(capsys, "help", "completion") == call(capsys, "completion", "--help")
    assert "Did you mean 'nightly'?" in call(capsys, "help", "nigthly")[2]
    assert call(capsys, "--version") == (0, f"qtorch {__version__}\n", "")


def test_an_unknown_command_is_told_of_the_nearest(capsys):
    code, out, err = call(capsys, "nigthly", "--config", "x")
    assert (code, out) == (2, "")
    assert "'nigthly' is no command. Did you mean 'nightly'?" in err
    assert "Did you mean" not in call(capsys, "zzz")[2]
    assert call(capsys, "help", "nightly", "fit")[0] == 2


@pytest.fixture(scope="module")
def parsers():
    return {"nightly": nightly_parser(), "fit": fit_parser(), "check": check_parser(), "serve": serve_parser()}


@pytest.mark.parametrize("command", ["nightly", "fit", "check", "serve"])
def test_each_commands_help_tells_all(parsers, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = parsers[command].format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"usage: qtorch {command} ")
    assert "<class" not in text.partition("example:")[0].replace("<class 'dict'>", "")
    assert f"example:\n  qtorch {command} " in text
    assert "exit codes:\n  0  " in text
    silent = [
        action.dest for action in parsers[command]._actions if not action.help or "%(type)s" in (action.help or "")
    ]
    assert silent == [], "options that no docstring tells of"


def test_the_table_of_completions_is_that_of_the_parsers():
    kept = json.loads(completion.TABLE.read_text())
    assert kept == completion.table(), "write it anew: python -m qtorch.completion"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """What bash offers for the word at the end of a line."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "prices of May.parquet").touch()
    (folder / "qtorch.bash").write_text(completion.script("bash"))

    def offers(*words: str) -> list[str]:
        code = (
            'source qtorch.bash; read -ra how <<< "$(complete -p qtorch)"; COMP_WORDS=("$@"); '
            'COMP_CWORD=$(($# - 1)); "${how[2]}"; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", code, "-", *words], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]

    return offers


def test_bash_completes_commands_options_words_and_files(complete):
    assert complete("qtorch", "") == [*COMMANDS, "--help", "--version"]
    assert complete("qtorch", "ni") == ["nightly"]
    assert complete("qtorch", "nightly", "--risk.d") == ["--risk.dependence"]
    assert complete("qtorch", "nightly", "--risk.dependence", "") == ["past", "copula"]
    assert complete("qtorch", "fit", "--training.every_position", "t") == ["true"]
    assert complete("qtorch", "fit", "--data.path", "pri") == ["prices of May.parquet"]
    assert complete("qtorch", "fit", "--resume", "--o") == ["--output"]
    assert complete("qtorch", "check", "pri") == ["prices of May.parquet"]
    assert "--exchange" in complete("qtorch", "check", "--")
    assert complete("qtorch", "check", "--seed", "") == [""], "a number is the user's"
    assert complete("qtorch", "serve", "--models", "pri") == ["prices of May.parquet"]
    assert complete("qtorch", "completion", "z") == ["zsh"]
    assert complete("qtorch", "help", "f") == ["fit"]
    assert complete("qtorch", "nightly", "--risk.dependence", "=") == ["past", "copula"]
    assert complete("qtorch", "nightly", "--risk.dependence", "=", "c") == ["copula"]
    assert complete("qtorch", "nightly", "--risk.dependence=c") == ["--risk.dependence=copula"], "= breaks no words"
    assert complete("qtorch", "fit", "--data.path", "=", "pri") == ["prices of May.parquet"]
    for section in ("--data", "--model", "--training", "--training.schedule", "--risk"):
        assert complete("qtorch", "nightly", section, "pri") == ["prices of May.parquet"], "of YAML"


@pytest.mark.skipif(which("zsh") is None, reason="zsh is not there")
def test_zsh_reads_the_script(tmp_path):
    (tmp_path / "script").write_text(completion.script("zsh"))
    subprocess.run(["zsh", "-n", tmp_path / "script"], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"], ["nighly"]])
def test_nothing_heavy_is_imported_for_words(arguments):
    code = (
        "import sys; from qtorch.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(*sorted({'torch', 'pandas', 'numpy', 'jsonargparse'} & set(sys.modules)), 'heavy')"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy"
