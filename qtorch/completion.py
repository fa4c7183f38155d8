"""What makes a shell complete commands and options, from a table that the parsers' options are kept in.

The table is a file, because the parsers are made of classes that import torch, and a shell must not wait for it.
``python -m qtorch.completion`` writes it anew; a test holds it against the parsers.
"""

import json
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Literal, get_args, get_origin

TABLE = Path(__file__).with_name("completion.json")
Options = dict[str, list[str] | str]
"""By option: the words that it takes, "file" where it takes a path, "value" for another, "flag" for none."""

_FILES = {
    "nightly": {"config", "data.path", "output", "positions"},
    "history": {"where"},
    "fit": {"config", "data.path", "output"},
    "check": {"target", "data"},
    "serve": {"config", "models", "token_file"},
}
_BASH = """_qtorch() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} before=
    COMPREPLY=()
    # bash takes --option=value for three words, zsh for one.
    if [[ "$cur" == "=" ]]; then
        cur=
    elif [[ "$prev" == "=" ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ "$cur" == --*"="* ]]; then
        prev=${cur%%%%"="*} before=${cur%%%%"="*}"=" cur=${cur#*"="}
    fi
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "%(commands)s --help --version" -- "$cur"))
        return
    fi
    case "$command $prev" in
%(values)s
    esac
    case "$command" in
%(options)s
    esac
}
complete -F _qtorch qtorch
"""
_ZSH = """autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
"""
# zsh's compgen looks for files that begin as PREFIX, its own word at the cursor, of which `--option=` is no part.
_PATHS = (
    "local IFS=$'\\n'; compopt -o filenames 2>/dev/null; "
    'COMPREPLY=($(PREFIX=$cur; compgen -P "$before" -f -- "$cur")); return'
)


def parser() -> ArgumentParser:
    """Of `qtorch completion`."""
    found = ArgumentParser(
        prog="qtorch completion",
        description="Prints what makes a shell complete the commands of qtorch and their options.",
        epilog="for this shell, or as a line of ~/.bashrc or ~/.zshrc:\n  source <(qtorch completion bash)\n  "
        "source <(qtorch completion zsh)\n\nexit codes:\n  0  done\n  2  another shell",
        formatter_class=RawDescriptionHelpFormatter,
    )
    found.add_argument("shell", choices=("bash", "zsh"), help="the shell")
    return found


def script(shell: str) -> str:
    """The script of a shell, ``"bash"`` or ``"zsh"``; zsh reads bash's by its bashcompinit."""
    table: dict[str, Options] = json.loads(TABLE.read_text())
    values, options = [], []
    for command, own in table.items():
        dashed = {option: takes for option, takes in own.items() if option.startswith("-")}
        values += [
            f'        "{command} {option}") {_reply(takes)} ;;' for option, takes in dashed.items() if takes != "flag"
        ]
        reply = _reply(list(dashed))
        for option, takes in own.items():
            if option not in dashed:
                reply = f"if [[ $cur == -* ]]; then {reply}; else {_reply(takes)}; fi"
        options.append(f"        {command}) {reply} ;;")
    filled = _BASH % {"commands": " ".join(table), "values": "\n".join(values), "options": "\n".join(options)}
    return filled if shell == "bash" else _ZSH + filled


def _reply(takes: list[str] | str) -> str:
    """What gives the words that can stand for the one at the cursor."""
    if isinstance(takes, list):
        return f'COMPREPLY=($(compgen -P "$before" -W "{" ".join(takes)}" -- "$cur")); return'
    return _PATHS if takes == "file" else "return"


def table() -> dict[str, Options]:
    """The options of each command, as its parser has them."""
    from qtorch.command_parsers import check_parser, fit_parser, nightly_parser, serve_parser
    from qtorch.history_command import parser as history_parser

    made = {
        "nightly": nightly_parser(),
        "history": history_parser(),
        "fit": fit_parser(),
        "check": check_parser(),
        "serve": serve_parser(),
        "completion": parser(),
    }
    options = {command: _options(each, _FILES.get(command, set())) for command, each in made.items()}
    return options | {"help": {"command": list(made)}}


def _options(found: ArgumentParser, files: set[str]) -> Options:
    options: Options = {}
    for action in found._actions:  # argparse has no public way to them
        takes: list[str] | str = "value"
        if action.nargs == 0:
            takes = "flag"
        elif action.dest in files or action.help == SUPPRESS:  # a whole section, in a file of its own
            takes = "file"
        elif words := _words(action):
            takes = words
        names = action.option_strings or [action.dest]
        options |= {name: takes for name in names if name != "-h" and not name.endswith("+")}
    return options


def _words(action: object) -> list[str]:
    """What an option can be, where that is a few words."""
    choices = getattr(action, "choices", None)
    if choices is not None:
        return [str(choice) for choice in choices]
    kind = getattr(action, "_typehint", None)
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(each) for each in get_args(kind)]
    if set(get_args(kind)) == {bool, type(None)}:
        return ["true", "false", "null"]
    return []


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(), indent=1) + "\n")
