"""A first pass over rows of prices: which assets there are, on which exchanges and days."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qtorch.data import clean
from qtorch.data.calendars import day_number
from qtorch.data.clean import BadRows, finding
from qtorch.data.errors import DataError, name_rows
from qtorch.data.rows import KEYS, Rows
from qtorch.data.rules import Rules


@dataclass
class Survey:
    """What rows hold: which assets, on which exchanges and days; and rows whose dates were out of order."""

    code_of: dict[str, int] = field(default_factory=dict)
    exchange_of: list[str] = field(default_factory=list)
    days: dict[str, np.ndarray] = field(default_factory=dict)
    findings: list[pd.DataFrame] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)

    def codes(self, assets: pd.Series) -> np.ndarray:
        """The number of each row's asset, -1 if it has no price anywhere."""
        own = np.array([self.code_of.get(str(name), -1) for name in assets.cat.categories], dtype=np.int64)
        return own[assets.cat.codes.to_numpy()]


def survey(rows: Rows, rules: Rules, advance: Callable[[int], None]) -> Survey:
    """Reads who trades where and when; the assets in alphabetical order.

    Raises:
        DataError: rows out of order, an asset on two exchanges, or no close at all.
    """
    pairs: set[tuple[str, str]] = set()
    days: dict[str, list[np.ndarray]] = {}
    found = Survey()
    last: dict[str, int] = {}
    part = -1
    for number, chunk in rows.chunks((*KEYS, "close")):
        advance(len(chunk))
        if number != part:
            part, last = number, {}
        kept, _ = clean.usable(chunk, ["close"], rules.exchange, rules.bad_rows)
        _note_order(kept, last, found, rules.bad_rows)
        there = kept[kept["close"].notna()]
        found.silent.update(kept["asset"].cat.categories)
        asset, code = there["asset"].cat, there["exchange"].cat
        seen_pairs = pd.unique(asset.codes.to_numpy().astype(np.int64) * len(code.categories) + code.codes.to_numpy())
        for k in map(int, seen_pairs):
            pairs.add((asset.categories[k // len(code.categories)], code.categories[k % len(code.categories)]))
        for i, name in enumerate(code.categories):
            seen = np.unique(day_number(there["date"].to_numpy()[code.codes.to_numpy() == i]))
            if len(seen):
                days.setdefault(name, []).append(seen)
    if not pairs:
        raise DataError("no row holds a close: nothing to build a panel from.")
    ordered = sorted(pairs)
    names = [asset for asset, _ in ordered]
    clean.one_exchange(names, np.array([name in names[:i][-1:] for i, name in enumerate(names)]))
    found.code_of = {asset: i for i, asset in enumerate(names)}
    found.exchange_of = [code for _, code in ordered]
    found.days = {code: np.unique(np.concatenate(days[code])) for code in dict.fromkeys(found.exchange_of)}
    found.silent -= set(names)
    found.findings += no_price(found.silent)
    return found


def no_price(silent: set[str]) -> list[pd.DataFrame]:
    """What is found of assets without a price, if there are any."""
    if not silent:
        return []
    empty = pd.DataFrame({"asset": sorted(silent), "detail": "no row of it holds a close"})
    return [finding("no_price", empty.assign(date=pd.Series(pd.NaT, index=empty.index), row=-1))]


def _note_order(rows: pd.DataFrame, last: dict[str, int], found: Survey, bad_rows: BadRows) -> None:
    """Refuses or notes rows whose date is before that of the asset's row above."""
    codes = rows["asset"].cat.codes.to_numpy()
    day = day_number(rows["date"].to_numpy())
    order = np.argsort(codes, kind="stable")
    first = np.flatnonzero(np.diff(codes[order], prepend=-1))
    before = np.empty(len(day), dtype=np.int64)
    before[order] = np.concatenate([[0], day[order][:-1]])
    categories = rows["asset"].cat.categories
    for i in first:
        before[order[i]] = last.get(categories[codes[order[i]]], day[order[i]])
    ends = np.append(first[1:], len(order)) - 1
    for i in ends if len(order) else ():
        last[categories[codes[order[i]]]] = int(day[order[i]])
    backwards = rows[day < before]
    if len(backwards) and bad_rows == "raise":
        raise DataError(
            f"dates out of order: {name_rows(backwards)}. "
            "Sort with frame.sort_values(['asset', 'date']), or pass bad_rows='quarantine' to have it sorted."
        )
    if len(backwards):
        found.findings.append(finding("sorted", backwards.assign(detail="its date was before the row's above")))
