"""The command line; no logic."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXIT_CODES = (
    "exit codes: 0 done; 1 error; 2 unusable arguments or configuration; 3 done, but some assets have no forecast "
    "(forecasts.parquet names each and why); 4 refused: data or positions do not pass a check, nothing was written; "
    "5 the as-of date is a session of no exchange in the data, nothing was written"
)
FIT_EXIT_CODES = (
    "exit codes: 0 done; 1 error, or a loss that is not finite; 2 unusable arguments or configuration; 4 refused: the "
    "data do not pass a check"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="qtorch", description="Risk forecasts of markets that close on different days.")
    commands = parser.add_subcommands(title="commands", required=True)
    nightly, fit = _nightly_parser(), _fit_parser()
    commands.add_subcommand("nightly", nightly, help="forecast tonight's risk from a YAML configuration")
    commands.add_subcommand("fit", fit, help="train a model from a YAML configuration and save it")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parsed = parser.parse_args(arguments)
    if parsed.subcommand == "fit":
        sys.exit(_fit(fit, parsed.fit, arguments))
    sys.exit(_nightly(nightly, parsed.nightly, arguments))


def _nightly_parser():  # type: ignore[no-untyped-def]
    from jsonargparse import ArgumentParser

    from qtorch.nightly import NightlyConfig

    parser = ArgumentParser(
        description="Forecasts the risk of every asset and of a portfolio; writes Parquet files and a report.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--config", action="config", required=True, help="the YAML file; its paths are relative to it")
    parser.add_argument("--as-of", type=str | None, default=None, help="YYYY-MM-DD; default: the last date of the data")
    parser.add_class_arguments(NightlyConfig, None)
    return parser


def _fit_parser():  # type: ignore[no-untyped-def]
    from jsonargparse import ArgumentParser

    from qtorch.fitting import FitConfig

    parser = ArgumentParser(
        description="Trains a model and saves it; prints its validation scores.", epilog=FIT_EXIT_CODES
    )
    parser.add_argument("--config", action="config", required=True, help="the YAML file; its paths are relative to it")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints of a run that was broken off")
    parser.add_class_arguments(FitConfig, None)
    return parser


def _paths(parsed, arguments: Sequence[str]) -> Callable[[str, str], str]:  # type: ignore[no-untyped-def]
    """Resolves paths: they are relative to the file they stand in; those of the command line, to where it is run."""
    given = {argument.partition("=")[0] for argument in arguments}
    folder = Path(parsed.config[-1].absolute).parent

    def resolve(flag: str, path: str) -> str:
        # An option may be given by an unambiguous beginning of its name.
        shell = any(len(name) > 2 and flag.startswith(name) for name in given)
        return str(((Path.cwd() if shell else folder) / path).resolve())

    return resolve


def _fit(parser, parsed, arguments: Sequence[str]) -> int:  # type: ignore[no-untyped-def]
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


def _nightly(parser, parsed, arguments: Sequence[str]) -> int:  # type: ignore[no-untyped-def]
    """Runs the job; says in one line what went wrong."""
    from qtorch.data import DataError
    from qtorch.nightly import ExitCode, NightlyConfig, NotASession, Refused, run

    resolve = _paths(parsed, arguments)
    try:
        config = parser.instantiate(parsed)
        config.data.path = resolve("--data.path", config.data.path)
        config.output = resolve("--output", config.output)
        if config.positions is not None:
            config.positions = resolve("--positions", config.positions)
        if config.allocation is not None and (path := config.allocation.path) is not None:
            config.allocation.path = resolve("--allocation", path)
        result = run(
            NightlyConfig(
                config.data,
                config.positions,
                config.model,
                config.training,
                config.risk,
                config.output,
                config.allocation,
            ),
            as_of=parsed.as_of,
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
    for asset, reason in result.failed.items():
        print(f"no forecast for {asset}: {reason}", file=sys.stderr)
    print(f"forecasts  {result.folder / 'forecasts.parquet'}")
    print(f"report     {result.folder / 'report.html'}")
    return result.code
