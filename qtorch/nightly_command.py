"""`qtorch nightly`: one night or a row of them, their data's check, and the release of one that is held back."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd


def run(make: Callable[[], Any], parsed: Any) -> int:
    """Does what the options ask; says what went wrong.

    Args:
        make: gives the job's configuration, its paths resolved.
        parsed: the options.
    """
    from qtorch.nightly.ended import Ended, attempt
    from qtorch.nightly.outcome import worst

    say, complain = _speakers(parsed.json)
    several: list[Ended] | None = None
    readings: list[dict[str, Any]] = []

    def night() -> Ended:
        nonlocal several, readings
        from qtorch.errors import ArgumentError
        from qtorch.nightly import scheduled
        from qtorch.nightly.engine import engine_of

        first, last = parsed["from"], parsed["to"]
        asked = [
            name
            for name, there in (("--check", parsed.check), ("--release", parsed.release), ("--from", first is not None))
            if there
        ]
        if len(asked) > 1 or (first is None and (last is not None or parsed.keep_going)):
            raise ArgumentError(f"{' and '.join(asked) or '--to or --keep-going without --from'}: give one of these.")
        if first is not None and parsed.as_of is not None:
            raise ArgumentError("--as-of names one night, --from and --to a row of them: give one of these.")
        config, known = make(), _instant(parsed.knowledge_time)
        if parsed.check:
            code, day, found = scheduled.check(config, parsed.as_of, known)
            readings = [each.plain() for each in found]
            for each in found:
                say(f"{'alarm  ' if each.alarm else 'passed '} {each}")
            return Ended(code, day)
        if parsed.release:
            return scheduled.released(config, parsed.as_of, say)
        with engine_of(parsed.engine, parsed.workers, parsed.address, parsed.task_memory) as executor:
            how: dict[str, Any] = {"executor": executor, "progress": sys.stderr.isatty()}
            if first is None:
                return scheduled.night(config, parsed.as_of, knowledge_time=known, force=parsed.force, say=say, **how)
            several = scheduled.backfill(
                config,
                first,
                last,
                knowledge_time=known,
                force=parsed.force,
                keep_going=parsed.keep_going,
                say=say,
                complain=complain,
                **how,
            )
        return Ended(worst(each.code for each in several))

    ended = attempt(night, parsed.as_of, complain)
    if ended.error is not None:
        print(f"qtorch nightly: {ended.error}", file=sys.stderr)
    for asset, reason in ended.failed.items():
        print(f"no forecast for {asset}: {reason}", file=sys.stderr)
    for alarm in ended.summary()["alarms"]:
        print(f"{'held back' if alarm['held_back'] else 'warning'}: {alarm['words']}", file=sys.stderr)
    if ended.folder is not None:
        if ended.there_already:
            say("this night is there already, made of the same inputs; --force makes it anew")
        say(f"forecasts  {ended.folder / 'forecasts.parquet'}")
        say(f"report     {ended.folder / 'report.html'}")
    if parsed.json:
        document = ended.summary()
        if several is not None:
            document = {"exit_code": int(ended.code), "nights": [each.summary() for each in several]}
        elif parsed.check:
            document |= {"readings": readings, "alarms": [each for each in readings if each["alarm"]]}
        print(json.dumps(document), flush=True)  # last, for schedulers that read both streams as one
    return int(ended.code)


def _instant(given: str | None) -> pd.Timestamp | None:
    from qtorch.errors import ArgumentError

    if given is None:
        return None
    try:
        instant = pd.Timestamp(given)
    except ValueError as error:
        raise ArgumentError(f"knowledge-time {given!r} is not an instant such as 2022-12-28T22:00Z.") from error
    if pd.isna(instant) or instant.tz is None:
        raise ArgumentError(f"knowledge-time {given!r} has no time zone: give an instant such as 2022-12-28T22:00Z.")
    return instant


def _speakers(as_json: bool) -> tuple[Callable[[str], None], Callable[[str], None]]:
    """Of lines for people, and of complaints; with one JSON document on stdout both go to stderr."""

    def complain(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def say(line: str) -> None:
        print(line, flush=True)

    return (complain if as_json else say), complain
