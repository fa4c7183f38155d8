"""The parsers of the commands, whose help is that of the configurations' docstrings."""

import inspect
import re
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from textwrap import wrap
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

_CODES = {
    "nightly": {
        0: "done",
        1: "error",
        2: "unusable arguments or configuration",
        3: "done, but some assets have no forecast (forecasts.parquet names each, and why)",
        4: "refused: data or positions do not pass a check; nothing was written",
        5: "the as-of date is a session of no exchange in the data; nothing was written",
        6: "held back by a gate of the data: the night is in held/, and is published by --release",
        7: "held back by a gate of drift: the same",
        8: "another process is at work on the same night; nothing was written",
    },
    "fit": {
        0: "done",
        1: "error, or a loss that is not finite",
        2: "unusable arguments or configuration",
        4: "refused: the data do not pass a check",
    },
    "check": {
        0: "no look-ahead found",
        1: "an output knows the future",
        2: "nothing was found out: unusable arguments or data, a module or a pipeline that fails, or whose answers "
        "to the same panel differ",
    },
    "serve": {
        0: "stopped by a signal, and every request was answered",
        1: "error, or some requests were not answered within drain_s",
        2: "unusable arguments or configuration, no usable model, a port that is taken, or the extra serve is missing",
    },
}
_CONFIG = "the YAML file; its paths are relative to it, those of the command line to where it is run"
_SECTIONS = (
    "An option with a dot in its name takes the place of what the file's section of that name says. Returns are "
    "decimals (0.01 is 1 %), sessions are an asset's own, levels are confidences (0.99)."
)


def nightly_parser() -> ArgumentParser:
    """Of `qtorch nightly`."""
    from qtorch.nightly import NightlyConfig

    parser = _parser(
        "nightly",
        "Forecasts the risk of every asset and of a portfolio; writes Parquet files and a report.\n\n" + _SECTIONS,
        "--config FILE [--as-of DATE | --from DATE [--to DATE]]\n"
        "           [--check | --release | --force] [--knowledge-time INSTANT] [--json]\n"
        "           [--SECTION.OPTION VALUE ...]",
        "--config data/nightly.yaml --as-of 2022-12-28 --output nights",
    )
    parser.add_argument("--config", action="config", required=True, metavar="FILE", help=_CONFIG)
    parser.add_argument(
        "--as-of", type=str | None, default=None, metavar="DATE", help="YYYY-MM-DD; null is the last date of the data"
    )
    known = "rows whose known_at is later are not known, such as 2022-12-28T22:00Z; null sets no limit"
    parser.add_argument("--knowledge-time", type=str | None, default=None, metavar="INSTANT", help=known)
    first = "make the nights of all sessions from this date on that are not there; null makes one night"
    parser.add_argument("--from", type=str | None, default=None, metavar="DATE", help=first)
    last = "the last of them; null is the last date of the data"
    parser.add_argument("--to", type=str | None, default=None, metavar="DATE", help=last)
    for option, text in (
        ("--keep-going", "of --from: go on after a night that could not be made"),
        ("--force", "make a night anew that is there, made of the same inputs"),
        ("--check", "only tell what the gates of the data say; nothing is written"),
        ("--release", "publish a night that a gate has held back"),
        ("--json", "one JSON document on stdout at the end; all other lines on stderr"),
    ):
        parser.add_argument(option, action="store_true", help=text)
    engine = (
        "works on slices of 256 assets: local, this process; process, --workers of them; ray, a cluster (extra ray); "
        "null is process with --workers, and else local"
    )
    parser.add_argument("--engine", choices=["local", "process", "ray"], default=None, help=engine)
    workers = "processes, or slices that are with the cluster at a time; null is as many as there are processors for"
    parser.add_argument("--workers", type=int | None, default=None, metavar="N", help=workers)
    address = "of a Ray cluster, such as auto or 10.0.0.1:6379; null is RAY_ADDRESS, or starts Ray on this machine"
    parser.add_argument("--address", type=str | None, default=None, metavar="ADDRESS", help=address)
    memory = "GiB that a node of the cluster sets aside for a slice; null sets none aside"
    parser.add_argument("--task-memory", type=float | None, default=None, metavar="GIB", help=memory)
    parser.add_class_arguments(NightlyConfig, None)
    return _told(parser, NightlyConfig)


def fit_parser() -> ArgumentParser:
    """Of `qtorch fit`."""
    from qtorch.fitting import FitConfig

    parser = _parser(
        "fit",
        "Trains a model and saves it; prints its validation scores.\n\n" + _SECTIONS,
        "--config FILE [--resume] [--SECTION.OPTION VALUE ...]",
        "--config data/fit.yaml --training.max_epochs 5",
    )
    parser.add_argument("--config", action="config", required=True, metavar="FILE", help=_CONFIG)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints of a run that was broken off")
    parser.add_class_arguments(FitConfig, None)
    return _told(parser, FitConfig)


def check_parser() -> ArgumentParser:
    """Of `qtorch check`."""
    parser = _parser(
        "check",
        "Cuts and changes later prices, and looks whether earlier outputs move.",
        "TARGET --data FILE [OPTIONS]",
        "mydesk.signals:momentum --data prices.parquet --exchange XNYS",
    )
    target = "package.module:function of a panel, or the folder of a saved model"
    parser.add_argument("target", type=str, metavar="TARGET", help=target)
    parser.add_argument("--data", type=str, required=True, metavar="FILE", help="a Parquet file of prices")
    exchange = "code (MIC) of all assets' exchange, such as XNYS; null takes the data's column"
    parser.add_argument("--exchange", type=str | None, default=None, help=exchange)
    allow = "a package beside qtorch whose classes a saved model may name; give it once for each"
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help=allow)
    parser.add_argument("--lag", type=int, default=0, help="rows between what an output may know and its date")
    parser.add_argument("--cuts", type=int, default=24, help="how often the panel is cut")
    parser.add_argument("--first", type=str | None, default=None, metavar="DATE", help="YYYY-MM-DD, the earliest cut")
    parser.add_argument("--starts", type=int, default=3, help="how many later starts of the data are tried")
    parser.add_argument("--rtol", type=float, default=1e-5, help="relative differences that count as rounding")
    parser.add_argument("--seed", type=int, default=0, help="of the cuts and the changes")
    return parser


def serve_parser() -> ArgumentParser:
    """Of `qtorch serve`."""
    from qtorch.deploy.server.config import ServerConfig

    parser = _parser(
        "serve",
        "Answers requests of saved models in the Open Inference Protocol V2, over HTTP and gRPC.",
        "--models DIR [--config FILE] [OPTIONS]",
        "--models models --token_file tokens --port 8080",
    )
    parser.add_argument("--config", action="config", metavar="FILE", help=_CONFIG)
    parser.add_class_arguments(ServerConfig, None)
    return _told(parser, ServerConfig)


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Defaults without the types, which they and the docstrings tell, and texts in the lines that they have."""

    def _get_help_string(self, action: Any) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} (required)"
        if action.default == SUPPRESS or not action.option_strings or action.nargs == 0 or action.dest == "config":
            return text
        return f"{text} (default: %(default)s)"


def _parser(command: str, description: str, usage: str, example: str) -> ArgumentParser:
    codes = "\n".join(
        line for code, meaning in _CODES[command].items() for line in _wrapped(f"  {code}  {meaning}", indent=5)
    )
    return ArgumentParser(
        prog=f"qtorch {command}",
        usage=f"qtorch {command} {usage}",
        description="\n".join(line for part in description.split("\n") for line in _wrapped(part) or [""]),
        epilog=f"example:\n  qtorch {command} {example}\n\nexit codes:\n{codes}",
        formatter_class=_Help,
    )


def _wrapped(text: str, indent: int = 0) -> list[str]:
    return wrap(text, 78, subsequent_indent=" " * indent)


def _told(parser: ArgumentParser, config: type) -> ArgumentParser:
    """Says of each option and section what the configuration's docstrings say."""
    options, sections = dict(_attributes(config)), dict(_parts(config))
    # argparse has no public way to its actions and groups.
    for action in parser._actions:
        if action.dest in sections:
            action.help = SUPPRESS  # a file for a section alone
        elif action.dest in options:
            action.help = options[action.dest].replace("%", "%%")
    for group in parser._action_groups:
        names = {action.dest.rpartition(".")[0] for action in group._group_actions if action.help != SUPPRESS}
        owners = sorted(names & sections.keys(), key=len)
        if owners:
            group.title, group.description = owners[0], _summary(sections[owners[0]])
        elif str(group.title).startswith("<class"):
            group.title = "job"
    return parser


def _parts(config: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """The sections of a configuration, by their keys."""
    for name, kind in get_type_hints(config).items():
        if is_dataclass(kind) and isinstance(kind, type):
            yield prefix + name, kind
            yield from _parts(kind, f"{prefix}{name}.")


def _attributes(config: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """What the docstrings of a configuration say of each attribute, by its key."""
    for kind in reversed(config.__mro__):
        if kind.__doc__ and kind is not object:
            yield from ((prefix + name, text) for name, text in _documented(kind).items())
    for name, kind in _parts(config):
        if "." not in name:
            yield from _attributes(kind, f"{prefix}{name}.")


def _documented(kind: type) -> Mapping[str, str]:
    """The attributes of a docstring in Google style: four spaces and a name, further lines deeper."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    listed = re.split(r"\n\n", listed)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", listed, flags=re.MULTILINE)
    return {name: " ".join(text.split()).replace("`", "").rstrip(".") for name, text in found}


def _summary(kind: type) -> str:
    first, _, _ = (inspect.getdoc(kind) or "").partition("\n")
    return "\n".join(_wrapped(first.replace("`", "")))
