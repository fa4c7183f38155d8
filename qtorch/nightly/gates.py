"""What the night's data must pass, and what each asset's state tonight is."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from jaxtyping import Bool
from torch import Tensor

from qtorch.data import DataError, Panel, State, WindowSource, sessions
from qtorch.data.errors import listing
from qtorch.data.rows import ParquetRows
from qtorch.data.standing import standing
from qtorch.data.states import last_price
from qtorch.errors import ArgumentError
from qtorch.nightly.config import NightlyData
from qtorch.nightly.outcome import NotASession, Refused


def read_panel(
    config: NightlyData,
    as_of: str | None,
    knowledge_time: pd.Timestamp | None = None,
    *,
    keep: Path | None = None,
    say: Callable[[str], None] = print,
) -> Panel:
    """The panel up to the as-of date, which is its last row.

    Args:
        config: of the data.
        as_of: the date; None is the last of the data.
        knowledge_time: the instant after which nothing is known; None sets no such limit.
        keep: a folder for the panel of a dataset of many files, of which the next night reads the new ones alone, as of
            `Panel.update`; None keeps nothing.
        say: receives a line that tells what was read.

    Raises:
        DataError: the data cannot be used, or begin after the as-of date.
        NotASession: no exchange of the data has a session on the as-of date.
        Refused: exchanges had sessions up to the as-of date, but the data end before.
    """
    options: Any = {"as_of": config.as_of, "bad_rows": config.bad_rows, "off_calendar": config.off_calendar}
    first, last = ParquetRows(config.path, known_by=knowledge_time).span()
    date = last if as_of is None else day_of(as_of)
    if date < first:
        raise DataError(f"as-of {date:%Y-%m-%d} is before the data begin, on {first:%Y-%m-%d}.")
    if keep is not None and date >= last and knowledge_time is None and Path(config.path).is_dir():
        panel = _kept(keep, config.path, options, say)
    else:
        panel = None
    if panel is None or panel.dates[-1] > date:  # a file may have come meanwhile
        panel = Panel.from_parquet(config.path, end=date, known_by=knowledge_time, **options)
    last = panel.dates[-1]
    if as_of is None or date == last:
        return panel
    codes = sorted(set(panel.exchanges))
    since = {code: sessions(code, last, date).days for code in codes}
    if not any(date in days for days in since.values()):
        raise NotASession(f"{date:%Y-%m-%d} ({date:%A}) is a session of none of {', '.join(codes)}.")
    late = {code: int(((days > last) & (days <= date)).sum()) for code, days in since.items()}
    raise Refused(
        f"the data end on {last:%Y-%m-%d}; since then there were sessions up to {date:%Y-%m-%d}: "
        + ", ".join(f"{n} of {code}" for code, n in late.items())
        + ". Load the missing sessions, or ask for an earlier as-of date."
    )


def _kept(folder: Path, path: str, options: dict[str, Any], say: Callable[[str], None]) -> Panel | None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            return Panel.update(folder, path, say=say, **options)
    except Timeout:  # a night of another date has it
        say("panel: read whole, since another process is at work on the one that is kept")
        return None


def day_of(as_of: str) -> pd.Timestamp:
    """The date of words such as 2022-12-28.

    Raises:
        ValueError: they are no date.
    """
    try:
        date = pd.Timestamp(as_of).normalize()
    except ValueError as error:
        raise ArgumentError(f"as-of {as_of!r} is not a date such as 2022-12-28.") from error
    if pd.isna(date) or date.tz is not None:
        raise ArgumentError(f"as-of {as_of!r} is not a date such as 2022-12-28.")
    return date


def read_positions(path: str | Path, panel: Panel) -> tuple[pd.Series, str]:
    """Exposures by asset, and their unit: "weight" or "market_value".

    Raises:
        DataError: the file is not readable or lacks a column; a number is not finite; an asset stands in it twice or
            is not in the panel.
    """
    path = Path(path)
    try:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"positions {path}: not readable ({error}).") from error
    units = [name for name in ("weight", "market_value") if name in frame]
    if "asset" not in frame or len(units) != 1:
        raise DataError(
            f"positions {path}: needs a column 'asset' and either 'weight' or 'market_value'; it has "
            f"{listing(frame.columns, most=20)}."
        )
    unit = units[0]
    value = pd.to_numeric(frame[unit], errors="coerce")
    bad = ~np.isfinite(value)
    if bad.any():
        named = [f"{asset} (row {row}: {frame[unit][row]})" for row, asset in frame.loc[bad, "asset"].items()]
        raise DataError(f"positions {path}: {unit} is not a finite number for {listing(named)}. Correct them.")
    names = frame["asset"].astype("str")
    if names.duplicated().any():
        raise DataError(f"positions {path}: more than one row for {listing(names[names.duplicated()].unique())}.")
    unknown = [f"{asset} (row {row})" for row, asset in names.items() if asset not in panel.assets]
    if unknown:
        raise DataError(
            f"positions {path}: not in the data: {listing(unknown)}. Add their prices or remove the positions; the "
            f"data have {listing(panel.assets, most=50)}."
        )
    return pd.Series(value.to_numpy(dtype=float), index=names.to_numpy()), unit


def asset_states(
    panel: Panel, source: WindowSource, config: NightlyData, held: Mapping[str, float] | pd.Series
) -> pd.DataFrame:
    """Tonight's state of each asset and what is done about it.

    Returns:
        Indexed by asset: exchange, state (OBSERVED, CLOSED, MISSING or UNLISTED), last_price (date), sessions_without
        (of its exchange, since then), returns (how many there are), status: "ok"; "stale", forecast from the last
        price; "refused", no forecast though one is due; "retired", out of the universe; and the reason.

    Raises:
        Refused: too many of the assets whose market was open tonight have no price.
    """
    _, possible = source.at(np.array([len(panel.dates) - 1]), config.min_history, config.stale_sessions)
    return states_of(panel, possible[0], source.spec.features.first_usable + 1, config, held)


def states_of(
    panel: Panel,
    possible: Bool[Tensor, " N"] | None,
    least: int,
    config: NightlyData,
    held: Mapping[str, float] | pd.Series,
) -> pd.DataFrame:
    """The same, where it is known already of which assets there can be a forecast.

    Args:
        panel: up to tonight.
        possible: whether an asset's last window is usable, with enough history; None where that is not known yet: then
            an asset of enough returns is taken to have one.
        least: returns that the features need.
        config: limits.
        held: positions.
    """
    last = len(panel.dates) - 1
    count, silent = standing(panel, np.array([last]))
    silence, returns = silent[0].cpu().numpy(), count[0].cpu().numpy()
    observed = panel.mask[last].cpu().numpy()
    last_row = last_price(panel.mask)
    least = max(config.min_history, least)
    can = returns >= least if possible is None else possible.cpu().numpy()
    rows = []
    for n, asset in enumerate(panel.assets):
        quiet, day = int(silence[n]), panel.dates[last_row[n]]
        state = State.OBSERVED if observed[n] else State.MISSING if quiet else State.CLOSED
        status, reason = "ok", ""
        if quiet > config.retired_after:
            state = State.UNLISTED
            status, reason = "retired", f"no price since {day:%Y-%m-%d}"
            if held.get(asset, 0.0) != 0:
                status, reason = "refused", f"held, but without a price since {day:%Y-%m-%d} ({quiet} sessions)"
        elif quiet > config.stale_sessions:
            status, reason = "refused", f"no price since {day:%Y-%m-%d} ({quiet} sessions)"
        elif not can[n]:
            status, reason = "refused", f"too little history: {returns[n]} returns, needs {least}"
        elif quiet:
            status, reason = "stale", f"forecast from its last price, of {day:%Y-%m-%d}"
        elif state == State.CLOSED:
            reason = f"market closed; forecast from its last session, {day:%Y-%m-%d}"
        rows.append((asset, panel.exchanges[n], state.name, day, quiet, int(returns[n]), status, reason))
    columns = ["asset", "exchange", "state", "last_price", "sessions_without", "returns", "status", "reason"]
    states = pd.DataFrame(rows, columns=columns).set_index("asset")
    due = states[states["status"] != "retired"]
    open_tonight = due[due["state"].isin(["OBSERVED", "MISSING"])]
    missing = (open_tonight["state"] == "MISSING").sum()
    if missing > config.max_missing_share * len(open_tonight):
        raise Refused(
            f"{missing} of {len(open_tonight)} assets whose market was open on {panel.dates[last]:%Y-%m-%d} have no "
            f"price ({listing(open_tonight.index[open_tonight['state'] == 'MISSING'])}), more than "
            f"data.max_missing_share={config.max_missing_share:.0%}. Load the missing prices, or raise the limit."
        )
    return states


def file_hash(path: str | Path) -> str:
    """SHA-256 over a file, or over the names and contents of a dataset's files."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
