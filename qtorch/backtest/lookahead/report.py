"""What the look-ahead detector found."""

import html
import warnings
from dataclasses import dataclass

import pandas as pd

from qtorch.backtest.lookahead.starts import VERDICTS
from qtorch.errors import BriefInNotebooks

COLUMNS = (
    "test",
    "kind",
    "cut",
    "column",
    "date",
    "asset",
    "before",
    "after",
    "count",
    "input_date",
    "input_asset",
    "input_field",
    "rows_ahead",
)
_REMEDY = (
    "Let it read the panel that it is given alone, and of it rows up to the output's own date and none after: shift "
    "targets, centre no window, fill forward only, and fit means, scalers and models on rows before those that they "
    "are used for."
)
_ADVICE = {
    "missing": "is not there without later rows",
    "extra": "is there only without later rows",
    "changed": "is another with other later rows",
    "beyond": "is there though its panel ends before: other data are read, or it is dated ahead, which lag= allows",
}
UNMOVED = (
    "no change of later prices changed any output, later ones included: does the pipeline read the panel that it is "
    "given?"
)


class LookaheadError(BriefInNotebooks, AssertionError):
    """A pipeline that knows the future, or the start of its data; the message names what and where."""


@dataclass(frozen=True, eq=False)
class LookaheadReport:
    """Whether a pipeline's outputs know what came later, and how much they depend on where the data begin.

    Attributes:
        findings: one row for each test, cut and column in which an output differs: the test (``truncated``,
            ``changed prices``, ``changed cells``); its kind (``changed``, ``missing``, ``extra``; or ``beyond``, dated
            after the end of the panel that it was made of); the cut, the last date that was left as it is; the column,
            date and asset of the first output that differs, its value before and after, and how many differ; of the
            first row of each of three columns, but for what is beyond, also the first input that reaches the output,
            its date, asset and field, and how many rows of the panel it lies ahead of it.
        starts: how far outputs move if the data begin later; see `qtorch.backtest.lookahead.starts.moved`.
        notes: what may make the check mean less than it seems to.
        cuts: the last date that each test left as it is.
        compared: outputs that were compared.
        runs: of the pipeline.
        moved: whether any change of prices moved any output, be it a later one; if none did, the pipeline may not read
            the panel at all, and the check means nothing.
        lag: rows between what an output may know and its date.
        start_warning: the late move, in units of an output's usual size, from which a start that is not forgotten is
            told of.
    """

    findings: pd.DataFrame
    starts: pd.DataFrame
    notes: tuple[str, ...]
    cuts: pd.DatetimeIndex
    compared: int
    runs: int
    moved: bool
    lag: int
    start_warning: float

    @property
    def ok(self) -> bool:
        """Whether no output knows the future."""
        return self.findings.empty

    @property
    def remembered(self) -> pd.DataFrame:
        """The rows of `starts` whose outputs do not forget where the data begin."""
        kept = (self.starts["verdict"] == "does not forget") & (self.starts["late"] > self.start_warning)
        return self.starts[kept]

    def require(self, *, starts: bool = False) -> "LookaheadReport":
        """Itself, if no output knows the future: ``check_lookahead(pipeline, panel).require()`` is a test.

        It warns of a pipeline of which nothing moved.

        Args:
            starts: refuse outputs that do not forget where the data begin, too, and what no later start tells.

        Raises:
            LookaheadError: one does; the message names the first of them, the input that it knows and what to do. Or,
                with `starts`, one does not forget, or from no later start was there an output to compare.
        """
        if not self.moved:
            warnings.warn(UNMOVED, stacklevel=2)
        if not self.ok:
            raise LookaheadError("\n".join([*self._leaks(), _REMEDY]))
        if starts and not self.remembered.empty:
            raise LookaheadError(self._memory())
        if starts and not self.starts["verdict"].isin(VERDICTS).any():
            raise LookaheadError(self._untold())
        return self

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *(f"  {line}" for line in [*self._leaks(), *self._remarks()])])

    def _repr_html_(self) -> str:
        lines = [f"<b>{html.escape(self._headline())}</b>"]
        lines += [html.escape(line) for line in [*self._leaks(), *self._remarks()]]
        tables = [frame.to_html(index=False, na_rep="") for frame in (self.findings, self.starts) if not frame.empty]
        return "<br>".join(lines) + "".join(tables)

    def _headline(self) -> str:
        verdict = "no look-ahead found" if self.ok else "LOOK-AHEAD"
        columns = "" if self.ok else f" in {self.findings['column'].nunique()} column(s)"
        return (
            f"{verdict}{columns}: {len(self.cuts)} cuts {self.cuts[0]:%Y-%m-%d}..{self.cuts[-1]:%Y-%m-%d}, "
            f"{self.compared} outputs compared, {self.runs} runs"
        )

    def _leaks(self) -> list[str]:
        """A sentence for each column, of the finding with the nearest input."""
        found = self.findings
        named = found.sort_values("rows_ahead", kind="stable")
        return [_sentence(row) for row in named.drop_duplicates("column").to_dict("records")]

    def _remarks(self) -> list[str]:
        return [*self.notes, *([] if self.remembered.empty else [self._memory()])]

    def _memory(self) -> str:
        worst = self.remembered.sort_values("late", ascending=False).iloc[0]
        return (
            f"outputs do not forget where the data begin: {_named(worst['column'])} still moves by {worst['late']:.2g} "
            f"of its usual size at the end if they begin on {worst['start']:%Y-%m-%d}. A live run begins elsewhere "
            "than a backtest: use windows or decays, or say from which date all data are to be read."
        )

    def _untold(self) -> str:
        verdicts = ", ".join(self.starts["verdict"].drop_duplicates()) or "none was tried"
        text = (
            f"no output could be compared with one of a later start ({verdicts}), so that it is not known whether they "
            "forget where the data begin. Give starts= of at least 1, and a panel with more rows."
        )
        return "\n".join([text, *self.notes])


def _sentence(row: dict) -> str:
    asset = f" of {row['asset']}" if row["asset"] else ""
    text = f"{_named(row['column'])}{asset} on {row['date']:%Y-%m-%d} {_ADVICE[row['kind']]}"
    if row["input_date"] is not pd.NaT and not pd.isna(row["input_date"]):
        what = "that there is a row"
        if isinstance(row["input_asset"], str):
            what = f"the {row['input_field']} of {row['input_asset']}"
        text += f": it knows {what} on {row['input_date']:%Y-%m-%d}, {int(row['rows_ahead'])} row(s) ahead"
    return f"{text} ({row['test']} after {row['cut']:%Y-%m-%d}: {row['before']:.6g} -> {row['after']:.6g})"


def _named(column: str) -> str:
    return f"the output {column!r}" if column else "the output"
