"""The command line; no logic. Nothing heavy is imported before a command needs it."""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from qtorch import __version__

HELP = """usage: qtorch COMMAND [OPTIONS]

Risk forecasts of markets that close on different days: prices in, value at
risk, expected shortfall and portfolio weights out.

commands:
  nightly     forecast tonight's risk of every asset and of a portfolio
  history     tell what the nights have forecast; join and remove old ones
  fit         train a model and save it
  check       look whether a pipeline or a saved model knows the future
  serve       answer requests of saved models over HTTP and gRPC
  completion  print what makes bash or zsh complete commands and options
  help        show this text, or that of a command: qtorch help nightly

options:
  -h, --help  show this text; with a command, its options
  --version   show the version

examples:
  qtorch nightly --config data/nightly.yaml --as-of 2022-12-28
  qtorch fit --config data/fit.yaml
  qtorch check mydesk.signals:momentum --data prices.parquet --exchange XNYS
  qtorch serve --models models
  source <(qtorch completion bash)

exit codes:
  0  done
  1  error, or what check looks for was found
  2  unusable arguments or configuration
  A command's help tells its others.

documentation: the docstrings, such as python -m pydoc qtorch.training; with
the source, docs/index.md and notebooks/ too
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given:
        sys.stderr.write(HELP)
        sys.exit(2)
    command, rest = given[0], given[1:]
    if command in ("-h", "--help"):
        sys.stdout.write(HELP)
        sys.exit(0)
    if command == "--version":
        print(f"qtorch {__version__}")
        sys.exit(0)
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(
            f"qtorch: {command!r} is no command.{hint} They are {', '.join(COMMANDS)}; qtorch --help tells more.",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(COMMANDS[command](rest))


def _nightly(arguments: list[str]) -> int:
    from qtorch.command_parsers import nightly_parser

    parser = nightly_parser()
    return _run_nightly(parser, parser.parse_args(arguments), arguments)


def _history(arguments: list[str]) -> int:
    from qtorch.history_command import parser, run

    return run(parser().parse_args(arguments))


def _fit(arguments: list[str]) -> int:
    from qtorch.command_parsers import fit_parser

    parser = fit_parser()
    return _run_fit(parser, parser.parse_args(arguments), arguments)


def _check(arguments: list[str]) -> int:
    from qtorch.command_parsers import check_parser

    return _run_check(check_parser().parse_args(arguments))


def _serve(arguments: list[str]) -> int:
    from qtorch.command_parsers import serve_parser

    parser = serve_parser()
    return _run_serve(parser, parser.parse_args(arguments), arguments)


def _help(arguments: list[str]) -> int:
    if len(arguments) > 1:
        print(f"qtorch help: it tells of one command, not of {' '.join(arguments)!r}.", file=sys.stderr)
        return 2
    command = arguments[0] if arguments else "--help"
    main(["--help"] if command in ("help", "-h", "--help") else [command, "--help"])
    return 0


def _completion(arguments: list[str]) -> int:
    from qtorch.completion import parser, script

    print(script(parser().parse_args(arguments).shell), end="")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "nightly": _nightly,
    "history": _history,
    "fit": _fit,
    "check": _check,
    "serve": _serve,
    "completion": _completion,
    "help": _help,
}


def _paths(parsed, arguments: Sequence[str]) -> Callable[[str, str], str]:  # type: ignore[no-untyped-def]
    """Resolves paths: they are relative to the file they stand in; those of the command line, to where it is run."""
    given = {argument.partition("=")[0] for argument in arguments}
    folder = Path(parsed.config[-1].absolute).parent

    def resolve(flag: str, path: str) -> str:
        # An option may be given by an unambiguous beginning of its name.
        shell = any(len(name) > 2 and flag.startswith(name) for name in given)
        return str(((Path.cwd() if shell else folder) / path).resolve())

    return resolve


def _run_fit(parser, parsed, arguments: Sequence[str]) -> int:  # type: ignore[no-untyped-def]
    """Fits; says in one line what went wrong."""
    from qtorch.data import DataError
    from qtorch.fitting import FitConfig, run

    resolve = _paths(parsed, arguments)
    try:
        config = parser.instantiate(parsed)
        config.data.path = resolve("--data.path", config.data.path)
        config.output = resolve("--output", config.output)
        run(
            FitConfig(config.data, config.model, config.training, config.output),
            resume=parsed.resume,
            progress=sys.stderr.isatty(),
            say=lambda line: print(line, flush=True),
        )
    except DataError as error:
        print(f"qtorch fit: refused: {error}", file=sys.stderr)
        return 4
    except ValueError as error:
        print(f"qtorch fit: unusable arguments or configuration: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"qtorch fit: {error}", file=sys.stderr)
        return 1
    print(f"model      {config.output}")
    return 0


def _run_check(parsed) -> int:  # type: ignore[no-untyped-def]
    """Checks; says what was found, or in one line what went wrong."""
    from dataclasses import replace
    from traceback import print_exception

    from qtorch.backtest import PipelineError
    from qtorch.checking import run

    try:
        report = run(**vars(parsed))
    except ValueError as error:
        print(f"qtorch check: unusable arguments or data: {error}", file=sys.stderr)
        return 2
    except PipelineError as error:
        print_exception(error.__cause__, file=sys.stderr)
        print(f"qtorch check: {error}", file=sys.stderr)
        return 2
    except (Exception, SystemExit) as error:  # noqa: BLE001  Python's own exit code would be that of a leak
        print_exception(error, file=sys.stderr)
        print(f"qtorch check: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for note in report.notes:
        print(f"qtorch check: {note}", file=sys.stderr)
    print(replace(report, notes=()))
    return 0 if report.ok else 1


def _run_serve(parser, parsed, arguments: Sequence[str]) -> int:  # type: ignore[no-untyped-def]
    """Serves; says in one line what went wrong."""
    from qtorch.deploy.server.command import run
    from qtorch.deploy.server.config import ServerConfig

    try:
        values = parser.instantiate(parsed).as_dict()
        if values.pop("config"):
            resolve = _paths(parsed, arguments)
            values["models"] = resolve("--models", values["models"])
            if values["token_file"] is not None:
                values["token_file"] = resolve("--token_file", values["token_file"])
            if values["data"] is not None and "path" in values["data"]:
                values["data"] = values["data"] | {"path": resolve("--data", values["data"]["path"])}
        return run(ServerConfig(**values), say=lambda line: print(line, flush=True))
    except (ImportError, ValueError) as error:
        print(f"qtorch serve: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"qtorch serve: {error}", file=sys.stderr)
        return 1


def _run_nightly(parser, parsed, arguments: Sequence[str]) -> int:  # type: ignore[no-untyped-def]
    """Runs the job; says in one line what went wrong."""
    from qtorch.data import DataError
    from qtorch.nightly import ExitCode, NightlyConfig, NotASession, Refused, SinkError, run
    from qtorch.nightly.engine import engine_of

    resolve = _paths(parsed, arguments)
    try:
        config = parser.instantiate(parsed)
        config.data.path = resolve("--data.path", config.data.path)
        config.output = resolve("--output", config.output)
        if config.positions is not None:
            config.positions = resolve("--positions", config.positions)
        if config.allocation is not None and (path := config.allocation.path) is not None:
            config.allocation.path = resolve("--allocation", path)
        job = NightlyConfig(
            config.data,
            config.positions,
            config.model,
            config.training,
            config.risk,
            config.output,
            config.allocation,
            config.sinks,
        )
        with engine_of(parsed.engine, parsed.workers, parsed.address, parsed.task_memory) as executor:
            result = run(
                job,
                as_of=parsed.as_of,
                executor=executor,
                progress=sys.stderr.isatty(),
                say=lambda line: print(line, flush=True),
            )
    except (DataError, Refused) as error:
        print(f"qtorch nightly: refused: {error}", file=sys.stderr)
        return ExitCode.REFUSED
    except ValueError as error:
        print(f"qtorch nightly: unusable arguments or configuration: {error}", file=sys.stderr)
        return 2
    except NotASession as error:
        print(f"qtorch nightly: not a session: {error}", file=sys.stderr)
        return ExitCode.NOT_A_SESSION
    except SinkError as error:
        print(f"qtorch nightly: {error}", file=sys.stderr)
        return ExitCode.ERROR
    for asset, reason in result.failed.items():
        print(f"no forecast for {asset}: {reason}", file=sys.stderr)
    print(f"forecasts  {result.folder / 'forecasts.parquet'}")
    print(f"report     {result.folder / 'report.html'}")
    return result.code
