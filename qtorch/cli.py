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

CHECK_EXIT_CODES = (
    "exit codes: 0 no look-ahead found; 1 an output knows the future; 2 nothing was found out: unusable arguments or "
    "data, a module that fails when it is imported, a pipeline that fails or whose answers to the same panel differ"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="qtorch", description="Risk forecasts of markets that close on different days.")
    commands = parser.add_subcommands(title="commands", required=True)
    nightly, fit = _nightly_parser(), _fit_parser()
    commands.add_subcommand("nightly", nightly, help="forecast tonight's risk from a YAML configuration")
    commands.add_subcommand("fit", fit, help="train a model from a YAML configuration and save it")
    commands.add_subcommand("check", _check_parser(), help="look whether a pipeline or a saved model knows the future")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parsed = parser.parse_args(arguments)
    if parsed.subcommand == "fit":
        sys.exit(_fit(fit, parsed.fit, arguments))
    if parsed.subcommand == "check":
        sys.exit(_check(parsed.check))
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


def _check_parser():  # type: ignore[no-untyped-def]
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        description="Cuts and changes later prices, and looks whether earlier outputs move.", epilog=CHECK_EXIT_CODES
    )
    parser.add_argument("target", type=str, help="package.module:function of a panel, or the folder of a saved model")
    parser.add_argument("--data", type=str, required=True, help="a Parquet file of prices")
    parser.add_argument("--exchange", type=str | None, default=None, help="of all assets; default: the data's column")
    parser.add_argument("--lag", type=int, default=0, help="rows between what an output may know and its date")
    parser.add_argument("--cuts", type=int, default=24, help="how often the panel is cut")
    parser.add_argument("--first", type=str | None, default=None, help="YYYY-MM-DD, the earliest cut")
    parser.add_argument("--starts", type=int, default=3, help="how many later starts of the data are tried")
    parser.add_argument("--rtol", type=float, default=1e-5, help="differences that count as rounding")
    parser.add_argument("--seed", type=int, default=0, help="of the cuts and the changes")
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


def _check(parsed) -> int:  # type: ignore[no-untyped-def]
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
