"""Cuts and changes the future, and looks whether the past moves."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from qtorch.backtest.lookahead import starts as start_shift
from qtorch.backtest.lookahead.cuts import cut_rows, waiting_rows
from qtorch.backtest.lookahead.differences import Difference, beyond, differences, scales_of
from qtorch.backtest.lookahead.locate import Locator, Source
from qtorch.backtest.lookahead.markets import Kind, changed, since, with_cells
from qtorch.backtest.lookahead.outputs import Outputs
from qtorch.backtest.lookahead.report import COLUMNS, UNMOVED, LookaheadReport
from qtorch.backtest.lookahead.runner import AskedAt, Pipeline, PipelineError, Runner, history_of, is_model
from qtorch.data import DataError, Panel
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError

_TESTS = ("changed prices", "changed cells", "truncated")
_LOCATED = 3  # columns for whose first finding the input is looked for
_FEWEST = 20  # rows after the history that a model needs, before the first cut


def check_lookahead(
    pipeline: Pipeline | Any,
    panel: Panel,
    *,
    lag: int = 0,
    cuts: int | Iterable[str | pd.Timestamp] = 24,
    first: str | pd.Timestamp | None = None,
    starts: int = 3,
    rtol: float = 1e-5,
    start_warning: float = 0.01,
    seed: int = 0,
) -> LookaheadReport:
    """Whether what a pipeline says at a date changes with what comes after it, and with where the data begin.

    At each cut it is run on the panel as it stood there (`Panel.until`), and on the whole panel with other prices, or
    prices at other cells, after the cut. Outputs up to the cut must be those of the whole panel. Where one is not, the
    first input that reaches it is found by bisection. A third of the cuts are where an asset waits for its next price,
    because a back-fill leaks there alone; before the first cut later prices are changed at such rows too. Last, the
    data begin at some later rows: how far outputs move is told and is no fault by itself, since memory of the past
    looks like it; see `LookaheadReport.starts`.

    What stands in the panel already is not seen: closes that were adjusted or revised after their date. A random
    change that moves an output by less than `rtol` is not seen either.

    Args:
        pipeline: a function of a panel, whose answer is dated: see `qtorch.backtest.lookahead.outputs.outputs_of`. Or
            a model with `forecast(panel, dates)` or `allocate(panel, dates)`, which is asked around the cuts; it must
            be trained on what came before the first. An allocator of walks is one through its walk:
            ``lambda panel: WalkForward(...).run(panel, allocator)``; refits are made by
            ``lambda panel: walk_forward(panel, RiskMetrics, "quarter", start=...)``, with `first` after the start. The
            last row of a panel is no refit of a schedule: a model that learns says there what it learnt before, and on
            a longer panel what it learns there. At the date of a refit that is found as knowing of one later row.
            Refits at given dates, those up to the panel's last, say the same on both.
        panel: the market; some hundred rows will do.
        lag: rows between what an output may know and its date: 0 for what is known at the close of the date, 1 for
            weights that are traded at or before its open, which may know the closes of the row before alone. An output
            that is dated more rows than that after the end of the panel it was made of is a finding.
        cuts: how many, or the dates after which to cut.
        first: the earliest cut. Default: the row after a quarter of the panel; for a model, if that is later, the
            first with enough history.
        starts: how many later starts.
        rtol: differences up to this share of an output, or of its column's usual size, are rounding: batches of
            another size round otherwise in float32. 0.0 asks for equal bits.
        start_warning: from which mean move at the end, in units of an output's usual size, a start that is not
            forgotten is told of.
        seed: of the cuts and the changes.

    Raises:
        ValueError: two runs on the same panel differ; there is nothing to compare; a setting is out of bounds.
        DataError: a date is not the panel's, or the panel is too short.
        PipelineError: the pipeline failed, or gave what cannot be read.

    Example:
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample().query("asset in ['AAPL', 'KO'] and date > '2022-06'"))
        >>> def momentum(panel):
        ...     return panel.to_wide().pct_change(20)
        >>> check_lookahead(momentum, panel).ok
        True
        >>> def rank_in_sample(panel):
        ...     return momentum(panel).rank(pct=True)
        >>> check_lookahead(rank_in_sample, panel).ok
        False
    """
    require(lag >= 0, "lag", lag, "give a number of rows of at least 0")
    require(rtol >= 0, "rtol", rtol, "give a share of at least 0")
    require(starts >= 0, "starts", starts, "give a number of later starts of at least 0")
    model = is_model(pipeline)
    history = history_of(pipeline) if model else 0
    rows = _rows(panel, cuts, first, lag, history, seed)
    if model:
        near = sorted({r for row in rows for r in range(row - 1, row + lag + 1)})
        pipeline = AskedAt(pipeline, panel.dates[near])
    run = Runner(pipeline)
    whole = run(panel, "the whole panel")
    check = _Check(run, panel, whole, lag, rtol, seed)
    check.refuse_chance()
    for number, row in enumerate(rows):
        check.cut(row)
        check.change(row, "prices" if number % 2 == 0 else "cells")
    if first is None and isinstance(cuts, int) and not model:  # where a cut panel would be too short for some
        for row in waiting_rows(panel, 1, rows[0] - 1, cuts // 6, seed):
            check.change(row, "prices")
    if check.compared == 0 and not check.found:
        raise ArgumentError(
            f"there is nothing to compare: the pipeline has no output up to any of the cuts, "
            f"{panel.dates[rows[0]]:%Y-%m-%d} to {panel.dates[rows[-1]]:%Y-%m-%d}. Give cuts, or first=, within the "
            "dates of its outputs."
        )
    if not check.moved:
        check.notes.append(UNMOVED)
    room = max(1, rows[0] - history - _FEWEST) if model else len(panel.dates) // 2
    begins = sorted({int(row) for row in np.linspace(0, room, starts + 1)[1:].round()} - {0})
    table = [line for row in begins for line in check.begin(row)]
    return LookaheadReport(
        findings=check.findings(),
        starts=pd.DataFrame(table, columns=list(start_shift.COLUMNS)),
        notes=tuple(check.notes),
        cuts=panel.dates[rows],
        compared=check.compared,
        runs=run.runs,
        moved=check.moved,
        lag=lag,
        start_warning=start_warning,
    )


class _Check:
    """The tests of one pipeline, and what they have found so far."""

    def __init__(self, run: Runner, panel: Panel, whole: Outputs, lag: int, rtol: float, seed: int) -> None:
        self.run, self.panel, self.whole, self.lag, self.rtol, self.seed = run, panel, whole, lag, rtol, seed
        self.scales = scales_of(whole)
        self.compared, self.moved = 0, False
        self.notes: list[str] = []
        self.found: list[tuple[str, int, Difference]] = []

    def refuse_chance(self) -> None:
        """Raises an error if a second run on the same panel differs."""
        again = self.run(self.panel, "the whole panel, again")
        found, _ = differences(self.whole, again, pd.Timestamp.max, self.scales, self.rtol)
        if found:
            one = found[0]
            raise ArgumentError(
                f"two runs on the same panel differ: {one.column or 'the output'} of {one.asset or 'all'} on "
                f"{one.date:%Y-%m-%d} was {one.before:.6g} and then {one.after:.6g}, so that nothing can be said of "
                "the future. Seed the pipeline within each call (torch.manual_seed(0), or a generator made there), put "
                "networks in evaluation mode, and keep no state from one call to the next."
            )

    def cut(self, row: int) -> None:
        """Runs on the panel as it stood at a row."""
        date, limit = self.panel.dates[row], self.panel.dates[row + self.lag]
        outputs = self.run(self.panel.until(date), f"the panel cut after {date:%Y-%m-%d}")
        self._note("truncated", row, outputs, date)
        self.found += [("truncated", row, each) for each in beyond(self.whole, outputs, limit)]

    def change(self, row: int, kind: Kind) -> None:
        """Runs on the panel with other prices after a row."""
        date, limit = self.panel.dates[row], self.panel.dates[row + self.lag]
        market = with_cells(self.panel, changed(self.panel, row, kind, self.seed), row)
        outputs = self.run(market, f"the panel with changed {kind} after {date:%Y-%m-%d}")
        self._note(f"changed {kind}", row, outputs, limit)
        if not self.moved:
            self.moved = bool(differences(self.whole, outputs, pd.Timestamp.max, self.scales, self.rtol)[0])

    def begin(self, row: int) -> list[dict[str, object]]:
        """Runs on the panel from a row on; of a pipeline that can't, the verdict says so."""
        date = self.panel.dates[row]
        try:
            outputs = self.run(since(self.panel, row), f"the panel from {date:%Y-%m-%d} on")
        except PipelineError as error:
            self.notes.append(f"{error}")
            return [{"start": date, "column": column, "verdict": "failed"} for column in self.whole]
        return start_shift.moved(self.whole, outputs, date, self.scales, self.rtol)

    def findings(self) -> pd.DataFrame:
        """All that was found, the earliest outputs of each test first; with the input of the first of a column."""
        found = sorted(self.found, key=lambda each: (_TESTS.index(each[0]), each[2].date, each[1]))
        located: set[str] = set()
        lines = []
        for test, row, output in found:
            source = None
            if output.kind != "beyond" and output.column not in located and len(located) < _LOCATED:
                located.add(output.column)
                source = self._locate(test, row, output)
            lines.append(
                {
                    "test": test,
                    "cut": self.panel.dates[row],
                    **vars(output),
                    "input_date": pd.NaT if source is None else source.date,
                    "input_asset": None if source is None else source.asset,
                    "input_field": None if source is None else source.field,
                    "rows_ahead": np.nan if source is None else self._ahead(source, output),
                }
            )
        return pd.DataFrame(lines, columns=list(COLUMNS))

    def _note(self, test: str, row: int, outputs: Outputs, limit: pd.Timestamp) -> None:
        found, compared = differences(self.whole, outputs, limit, self.scales, self.rtol)
        self.compared += compared
        self.found += [(test, row, each) for each in found]

    def _locate(self, test: str, row: int, output: Difference) -> Source:
        scale = float(self.scales.get(output.column, pd.Series(dtype=float)).get(output.asset, 0.0))
        locator = Locator(self.run, self.panel, output, scale, self.rtol)
        if test == "truncated":
            return locator.in_later_rows(row, self.seed)
        kind: Kind = "prices" if test == "changed prices" else "cells"
        return locator.in_changed(row, changed(self.panel, row, kind, self.seed))

    def _ahead(self, source: Source, output: Difference) -> int:
        """Rows of the panel from the output's date to the input's."""
        dates = self.panel.dates
        return int(dates.searchsorted(source.date)) - (int(dates.searchsorted(output.date, side="right")) - 1)


def _rows(
    panel: Panel,
    cuts: int | Iterable[str | pd.Timestamp],
    first: str | pd.Timestamp | None,
    lag: int,
    history: int,
    seed: int,
) -> list[int]:
    """The rows to cut after."""
    T = len(panel.dates)
    last = T - 2 - lag
    if not isinstance(cuts, int):
        rows = sorted({panel.row(date) for date in cuts})
        if not rows or rows[0] < 1 or rows[-1] > last:
            raise DataError(f"cuts must be dates from {panel.dates[1]:%Y-%m-%d} to {panel.dates[last]:%Y-%m-%d}.")
        return rows
    require(cuts >= 1, "cuts", cuts, "give at least 1")
    early = max(1, T // 4, history + _FEWEST if history else 0) if first is None else panel.row(first)
    if not 1 <= early <= last:
        raise DataError(
            f"the panel is too short: it has {T} rows, the earliest cut is after row {early} and the latest after row "
            f"{last}. Give more rows"
            + (f": a model that needs {history} returns needs {history + _FEWEST + 2}." if history else ", or first=.")
        )
    return cut_rows(panel, early, last, cuts, seed)
