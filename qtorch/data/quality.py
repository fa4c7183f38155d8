"""What is wrong with the prices of a panel: a table of counts per asset, and where each fault is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from qtorch.data.calendars import dates_of
from qtorch.data.errors import DataError
from qtorch.data.moves import splits, taken_back, usual_move
from qtorch.data.panel import Panel
from qtorch.data.states import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS_AT_ONCE = 128  # assets per block: bounds the memory of 5,000 assets x 6,300 sessions to that of a few fields
MANY = 250  # runs of a kind in an asset, beyond which events name only where they begin and end
ROUNDING = 1e-6  # relative; adjusted prices are products of rounded factors
COUNTED = ["behind", "missing", "missing_shared", "off_calendar", "stale_runs", "jumps", "spikes", "splits_suspected"]
COUNTED += ["stale_opens", "zero_volume", "padded", "ohlc_inconsistent", "incomplete", "refused"]
COLUMNS = ["exchange", "first", "last", "behind", "sessions", "observed", "missing", "longest_missing_run"]
COLUMNS += ["missing_shared", "off_calendar", "stale_runs", "longest_stale_run", *COUNTED[5:]]
EVENT = ["asset", "kind", "date", "end", "length", "detail"]


@dataclass(frozen=True, eq=False)
class Quality:
    """The faults and oddities of a panel's prices.

    Attributes:
        table: a row per asset, in the panel's order; the columns are told in `quality`.
        events: a row per event, by asset and date: asset; kind (``missing``, ``off_calendar``, ``stale``, ``jump``,
            ``spike``, ``split``, ``stale_open``, ``zero_volume``, ``padded``, ``ohlc_inconsistent``, ``incomplete``,
            ``refused``, ``no_price``); date (of the first session or price concerned; of the panel's row if there is
            no price); end (of the last); length (how many they are); detail (words). Zero volume is listed where it
            lasts for `stale` prices. Of an asset with more than 250 runs of a kind, one event spans them all. Assets
            without any price, which the table lacks, come last.
        panel: what was examined.
    """

    table: pd.DataFrame
    events: pd.DataFrame
    panel: Panel = field(repr=False)

    def summary(self) -> pd.DataFrame:
        """How often each fault occurs, in how many assets, and in which most; a row per column of counts."""
        counts = self.table[[name for name in COUNTED if self.table[name].notna().any()]].fillna(0).astype("int64")
        worst = []
        for name in counts:
            most = counts[name].nlargest(3)
            worst.append(", ".join(f"{asset} {n:,}" for asset, n in most[most > 0].items()))
        return pd.DataFrame({"total": counts.sum(), "assets": (counts > 0).sum(), "most": worst})

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws the state of every asset over time; see `qtorch.data.plots.state_map`.

        Args:
            ax: axes to draw on; None makes a figure.
        """
        from qtorch.data.plots import state_map

        if ax is None:
            import matplotlib.pyplot as plt

            height = float(np.clip(1.4 + 0.25 * len(self.panel.assets), 2.6, 8.0))
            ax = plt.figure(figsize=(12, height), layout="constrained").subplots()
        state_map(ax, self.panel)
        return ax

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.summary().to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self.summary().to_html()}"

    def _headline(self) -> str:
        sessions, missing = self.table["sessions"].sum(), self.table["missing"].sum()
        codes, dates = self.table["exchange"].nunique(), self.panel.dates
        share = f"; {1 - missing / sessions:.2%} of sessions observed" if sessions else ""
        return (
            f"Quality of {len(self.table)} asset{'s' * (len(self.table) != 1)}, {codes} exchange{'s' * (codes != 1)}, "
            f"{dates[0]:%Y-%m-%d}..{dates[-1]:%Y-%m-%d}{share}"
        )


def quality(panel: Panel, *, stale: int = 5, jump: float = 0.1, jump_scales: float = 10.0) -> Quality:
    """Counts and locates what is wrong or odd in a panel's prices.

    The table's columns, all counts but the first three:

    * ``exchange``, ``first`` and ``last``: the sessions of the first and the last price.
    * ``behind``: sessions of its exchange after its last price: delisted, or a feed that stopped.
    * ``sessions``: of its exchange from the first to the last price, or to its delisting where delistings are known;
      ``observed``: prices, those on closed days included. So observed = sessions - missing + those on closed days.
    * ``missing``: sessions without a price; ``longest_missing_run`` of consecutive sessions; ``missing_shared``:
      those on which at least half of the exchange's other assets have no price either, so that the calendar or the
      feed is at fault rather than the asset.
    * ``off_calendar``: prices on days on which the exchange is closed, be they kept or dropped.
    * ``stale_runs``: runs of at least `stale` consecutive sessions whose close is the one before (a close that stands
      for six sessions is unchanged on five); ``longest_stale_run`` of any length. Missing sessions neither count nor
      end a run.
    * ``jumps``: prices whose move from the one before is beyond `jump` and `jump_scales` usual moves. The usual move
      is 1.4826 times the median absolute log return of 64 prices of the asset, unchanged ones apart, the greatest of
      such a block and the ones beside it, so that a turbulent month makes no jumps; times the root of the sessions
      since the price before. It looks both ways in time: this is a description, not a feature.
    * ``spikes``: jumps that the next price takes back by three quarters or more; most are faults.
    * ``splits_suspected``: moves by a split's ratio (3:2 to 100:1, or the reverse) within 2 % to 8 %, three usual
      moves; overnight where there is an open; not taken back; and not, where there is volume, on a day on which
      shares and turnover are both beyond three times their median of the 20 prices before, as they are on bad news.
    * ``stale_opens``: opens that are the close before, in runs of at least `stale` prices that move within their day:
      an index's open before its stocks have traded, at which nobody could have dealt. Where trading never stops they
      are as they should be.
    * ``zero_volume``: prices with a volume of zero; ``padded``: those of them with an unchanged close and no range,
      with which vendors fill holidays and halts. <NA> without volume.
    * ``ohlc_inconsistent``: prices whose open or close is outside low to high; ``incomplete``: prices some of whose
      other fields are empty; ``refused``: rows that the panel's constructor set aside as impossible.

    Args:
        panel: the market.
        stale: the shortest run of unchanged closes, of stale opens, or of zero volume, that is an event, in prices.
        jump: the least move that is a jump; a simple return, 0.1 for 10 % up or the log return as large down.
        jump_scales: how many usual moves a jump is.

    Raises:
        DataError: an argument that is not positive.

    Example:
        >>> import pandas as pd
        >>> days = pd.bdate_range("2021-03-01", periods=6)
        >>> closes = pd.DataFrame({"SPY": [380.0, 381.0, None, 190.0, 191.0, 190.5]}, index=days)
        >>> report = quality(Panel.from_frame(closes, exchange="XNYS"))
        >>> report.events[["kind", "date", "detail"]]
              kind       date                                    detail
        0  missing 2021-03-03                                 1 session
        1     jump 2021-03-04               a move of -50.1% over 2 sessions
        2    split 2021-03-04  2-for-1 split suspected: close x 0.499
    """
    for name, value in (("stale", stale), ("jump", jump), ("jump_scales", jump_scales)):
        if not value > 0:
            raise DataError(f"{name}={value!r} must be positive.")
    shared = _missing_together(panel)
    is_session = panel.is_session
    tables, events = [], []
    for start in range(0, len(panel.assets), COLUMNS_AT_ONCE):
        own = _Own.of(panel, is_session, slice(start, start + COLUMNS_AT_ONCE))
        counts: dict[str, np.ndarray] = {}
        events.append(_gaps(own, shared, counts))
        events.extend(_runs_and_rows(own, stale, counts))
        events.extend(_moves(own, np.log1p(jump), jump_scales, counts))
        tables.append(pd.DataFrame(own.span | counts, index=own.assets))
    table = pd.concat(tables).rename_axis("asset")
    noted = _noted(panel)
    for kind in ("off_calendar", "refused"):
        found = noted.loc[noted["kind"] == kind, "asset"].value_counts()
        table[kind] = found.reindex(table.index, fill_value=0)
    for name in ("zero_volume", "padded"):
        table[name] = table[name].astype("Int64") if "volume" in panel.fields else pd.NA
    listed = pd.concat([*events, noted], ignore_index=True)
    position = pd.Series(np.arange(len(table)), index=table.index)
    order = listed.assign(at=listed["asset"].map(position)).sort_values(["at", "date"], kind="stable")
    return Quality(table[COLUMNS], order[EVENT].reset_index(drop=True), panel)


@dataclass(frozen=True)
class _Own:
    """The prices of some assets in their own time: column k of `[N, K]` holds an asset's k-th price.

    So the price before is the column before, whatever closed or missing sessions lie between. After an asset's last
    price `there` is False, fields are NaN.
    """

    assets: pd.Index
    span: dict[str, object]  # columns of the table that need no prices
    rows: np.ndarray  # dates of the panel's rows
    missing: np.ndarray  # [N, T], a session without a price
    observed: np.ndarray  # [N, T]
    exchange: np.ndarray  # [N], where each asset's exchange stands among the panel's codes
    there: np.ndarray
    date: np.ndarray
    session: np.ndarray  # of its exchange, counted from the panel's first row
    on_session: np.ndarray
    fields: dict[str, np.ndarray]

    @classmethod
    def of(cls, panel: Panel, sessions: torch.Tensor, columns: slice) -> "_Own":
        """Gathers the prices of a block of columns."""
        state, is_session, day, values = (
            x[:, columns].transpose(0, 1).contiguous().cpu().numpy()
            for x in (panel.state, sessions, panel.session_day, panel.values)
        )
        observed = state == State.OBSERVED
        K = observed.sum(axis=1)
        there = np.arange(max(int(K.max()), 1)) < K[:, None]

        def gather(cells: np.ndarray, fill: object) -> np.ndarray:
            out = np.full(there.shape, fill, dtype=cells.dtype)
            out[there] = cells[observed]
            return out

        session = np.cumsum(is_session, axis=1, dtype=np.int64)
        date = gather(dates_of(day), np.datetime64("NaT"))
        listed = state != State.UNLISTED
        ended = K > 0
        span = {
            "exchange": np.array(panel.exchanges[columns], dtype=object),
            "first": date[:, 0],
            "last": np.where(ended, date[np.arange(len(K)), np.maximum(K - 1, 0)], np.datetime64("NaT")),
            "behind": np.where(ended, session[:, -1] - session.max(axis=1, where=observed, initial=0), 0),
            "sessions": (is_session & listed).sum(axis=1),
            "observed": K,
        }
        return cls(
            assets=pd.Index(panel.assets[columns], dtype="str"),
            span=span,
            rows=panel.dates.to_numpy().astype("M8[us]"),
            missing=state == State.MISSING,
            observed=observed,
            exchange=np.array(panel.exchange_index[columns], dtype=int),
            there=there,
            date=date,
            session=gather(session, 0),
            on_session=gather(is_session, False),
            fields={name: gather(values[:, :, f], np.nan) for f, name in enumerate(panel.fields)},
        )

    def event(
        self, kind: str, n: np.ndarray, first: np.ndarray, last: np.ndarray, length: np.ndarray, detail: list[str]
    ) -> pd.DataFrame:
        """Rows of `Quality.events`, given their assets and dates."""
        columns = (self.assets[n], kind, first, last, length, np.array(detail, dtype=object))
        return pd.DataFrame(dict(zip(EVENT, columns, strict=True))).astype({"length": "int64", "detail": "str"})

    def prices(self, kind: str, n: np.ndarray, k: np.ndarray, detail: list[str]) -> pd.DataFrame:
        """Events of single prices."""
        return self.event(kind, n, self.date[n, k], self.date[n, k], np.ones(len(n)), detail)

    def count(self, n: np.ndarray) -> np.ndarray:
        """How often each asset occurs, [N]."""
        return np.bincount(n, minlength=len(self.assets))


def _gaps(own: _Own, shared: np.ndarray, counts: dict[str, np.ndarray]) -> pd.DataFrame:
    """Missing sessions."""
    together = own.missing & shared[own.exchange]
    n, first, last, length = _runs(own.missing, own.observed)
    counts["missing"] = own.missing.sum(axis=1)
    counts["missing_shared"] = together.sum(axis=1)
    counts["longest_missing_run"] = _longest(n, length, len(own.assets))
    n, first, last, length, runs = _condense(n, first, last, length)
    before = np.pad(np.cumsum(together, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    common = before[n, last + 1] - before[n, first]
    detail = [
        _plural(size, "session")
        + (f", {c} of them missing in the exchange's other assets too" if c else "")
        + (f", in {m} runs" if m > 1 else "")
        for size, c, m in zip(length.tolist(), common.tolist(), runs.tolist(), strict=True)
    ]
    return own.event("missing", n, own.rows[first], own.rows[last], length, detail)


def _runs_and_rows(own: _Own, stale: int, counts: dict[str, np.ndarray]) -> Iterator[pd.DataFrame]:
    """Stale closes and opens, zero volume, and prices whose fields do not fit together."""
    close, nothing = own.fields["close"], np.full_like(own.fields["close"], np.nan)
    o, h, low, volume = (own.fields.get(name, nothing) for name in ("open", "high", "low", "volume"))
    unchanged = np.zeros_like(own.there)
    unchanged[:, 1:] = close[:, 1:] == close[:, :-1]

    n, first, last, length = _runs(unchanged & own.on_session, own.there & ~unchanged)
    long = length >= stale
    counts["stale_runs"] = own.count(n[long])
    counts["longest_stale_run"] = _longest(n, length, len(own.assets))
    n, first, last, length, runs = _condense(n[long], first[long], last[long], length[long])
    told = zip(close[n, first].tolist(), length.tolist(), runs.tolist(), strict=True)
    detail = [
        f"close unchanged at {c:g}" + (f" and more, in {m} runs" if m > 1 else f" for {_plural(size, 'session')}")
        for c, size, m in told
    ]
    yield own.event("stale", n, own.date[n, first], own.date[n, last], length, detail)

    copied = np.zeros_like(own.there)
    copied[:, 1:] = (np.abs(o[:, 1:] - close[:, :-1]) <= ROUNDING * close[:, :-1]) & (h[:, 1:] > low[:, 1:])
    n, first, last, length = _runs(copied, own.there & ~copied)
    n, first, last, length = (x[length >= stale] for x in (n, first, last, length))
    counts["stale_opens"] = np.bincount(n, length, len(own.assets)).astype(np.int64)
    n, first, last, length, runs = _condense(n, first, last, length)
    detail = [
        f"the open is the close before on {_plural(size, 'session')}" + (f", in {m} runs" if m > 1 else "")
        for size, m in zip(length.tolist(), runs.tolist(), strict=True)
    ]
    yield own.event("stale_open", n, own.date[n, first], own.date[n, last], length, detail)

    every: list[str] = [name for name in ("open", "high", "low", "close", "volume") if name in own.fields]
    with np.errstate(invalid="ignore"):
        idle = volume == 0
        outside = (low > np.fmin(o, close) * (1 + ROUNDING)) | (h < np.fmax(o, close) * (1 - ROUNDING))
        outside |= low > h * (1 + ROUNDING)
        empty = own.there & np.any([np.isnan(x) for x in own.fields.values()], axis=0)
        faults: dict[str, tuple[np.ndarray, str, list[str]]] = {
            "zero_volume": (idle, "no volume", ["close"]),
            "padded": (idle & unchanged & ~(h > low), "unchanged, without range or volume", ["close"]),
            "ohlc_inconsistent": (outside, "open or close outside low to high", every),
            "incomplete": (empty, "some field empty", every),
        }
    for kind, (bad, words, shown) in faults.items():
        counts[kind] = bad.sum(axis=1)
        n, first, last, length = _runs(bad, own.there & ~bad)
        if kind == "zero_volume":
            n, first, last, length = (x[length >= stale] for x in (n, first, last, length))
        n, first, last, length, runs = _condense(n, first, last, length)
        prices = zip(*(own.fields[name][n, first].tolist() for name in shown), strict=True)
        detail = [
            f"{words}: "
            + " ".join(f"{a} {b:g}" for a, b in zip(shown, x, strict=True))
            + (f", in {m} runs" if m > 1 else "")
            for x, m in zip(prices, runs.tolist(), strict=True)
        ]
        yield own.event(kind, n, own.date[n, first], own.date[n, last], length, detail)


def _moves(own: _Own, least: float, scales: float, counts: dict[str, np.ndarray]) -> Iterator[pd.DataFrame]:
    """Jumps, spikes and splits."""
    log_close = np.log(own.fields["close"])
    move, sessions = np.full_like(log_close, np.nan), np.ones_like(log_close)
    move[:, 1:] = np.diff(log_close, axis=1)
    sessions[:, 1:] = np.maximum(np.diff(own.session, axis=1), 1)
    usual = usual_move(move / np.sqrt(sessions)) * np.sqrt(sessions)
    with np.errstate(invalid="ignore"):
        jumped = np.abs(move) > np.fmax(least, scales * usual)

    n, k = np.nonzero(jumped)
    counts["jumps"] = own.count(n)
    detail = [
        f"a move of {np.expm1(m):+.1%} over {_plural(int(s), 'session')}"
        + (f", {abs(m) / u:.0f} times the usual" if u == u else "")
        for m, s, u in zip(move[n, k].tolist(), sessions[n, k].tolist(), usual[n, k].tolist(), strict=True)
    ]
    yield own.prices("jump", n, k, detail)

    n, k = np.nonzero(jumped & taken_back(move))
    counts["spikes"] = own.count(n)
    pairs = zip(move[n, k].tolist(), move[n, k + 1].tolist(), strict=True)
    yield own.prices("spike", n, k, [f"a move of {np.expm1(a):+.1%}, then {np.expm1(b):+.1%}" for a, b in pairs])

    n, k, detail = splits(own.fields, move, usual)
    counts["splits_suspected"] = own.count(n)
    yield own.prices("split", n, k, detail)


def _runs(bad: np.ndarray, broken: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of bad cells along the last axis that no broken cell interrupts: their row, first, last and length."""
    n, k = np.nonzero(bad)
    part = np.cumsum(broken, axis=1, dtype=np.int32)[n, k]
    starts = np.flatnonzero((np.diff(n, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0))
    length = np.diff(starts, append=len(n))
    return n[starts], k[starts], k[starts + length - 1], length


def _condense(n: np.ndarray, first: np.ndarray, last: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, ...]:
    """Runs with those of assets that have too many of them taken together, and how many each stands for."""
    alone = np.bincount(n, minlength=1)[n] <= MANY
    starts = np.flatnonzero(alone | (np.diff(n, prepend=-1) != 0))
    runs = np.diff(starts, append=len(n))
    length = np.add.reduceat(length, starts) if len(n) else length
    return n[starts], first[starts], last[starts + runs - 1], length, runs


def _longest(n: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    longest = np.zeros(size, dtype=np.int64)
    np.maximum.at(longest, n, length)
    return longest


def _missing_together(panel: Panel) -> np.ndarray:
    """Whether, when one asset of an exchange is missing, half of its others are: [exchanges, T]."""
    state = panel.state.cpu().numpy()
    exchange = np.array(panel.exchange_index, dtype=int)
    together = []
    for x in range(len(panel.exchange_codes)):
        of = state[:, exchange == x]
        others_missing = (of == State.MISSING).sum(axis=1) - 1
        others = others_missing + (of == State.OBSERVED).sum(axis=1)
        together.append((others > 0) & (2 * others_missing >= others))
    return np.array(together)


def _noted(panel: Panel) -> pd.DataFrame:
    """Prices on closed days and refused rows, as the constructor found them; and the former as the cells show them."""
    found = panel.findings
    found = found[found["kind"].isin(["off_calendar", "refused", "no_price"])]
    found = found.assign(date=pd.to_datetime(found["date"], errors="coerce").astype("M8[us]"))
    t, n = np.nonzero((panel.mask & ~panel.is_session).cpu().numpy())
    day = dates_of(panel.session_day.cpu().numpy()[t, n])
    cells = pd.DataFrame({"kind": "off_calendar", "asset": pd.Index(panel.assets)[n], "date": day, "row": -1})
    cells = cells.assign(detail="a price on a day on which the exchange is closed, kept")
    noted = pd.concat([found, cells], ignore_index=True)
    noted = noted[(noted["kind"] != "off_calendar") | ~noted.duplicated(["kind", "asset", "date"])]
    detail = [
        f"{text} (row {row})" if row >= 0 else text for text, row in zip(noted["detail"], noted["row"], strict=True)
    ]
    return noted.assign(end=noted["date"], length=1, detail=pd.Series(detail, noted.index, dtype="str"))[EVENT]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
