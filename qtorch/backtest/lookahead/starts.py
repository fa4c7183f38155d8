"""How much outputs depend on where the data begin."""

import numpy as np
import pandas as pd

from qtorch.backtest.lookahead.differences import unequal
from qtorch.backtest.lookahead.outputs import Outputs

COLUMNS = ("start", "column", "compared", "missing", "median", "largest", "early", "late", "verdict")
VERDICTS = ("same", "forgets", "does not forget")
"""Those that say something; others are that there was nothing to compare."""
_FALLEN = 0.1  # of the early differences, at which the late ones count as forgotten


def moved(
    whole: Outputs, late: Outputs, start: pd.Timestamp, scales: dict[str, pd.Series], rtol: float
) -> list[dict[str, object]]:
    """How far the outputs of each column move if the data begin at a date, in units of their usual size.

    Returns:
        Of each column: the start; how many outputs both have, and how many are missing of the late one; the median and
        the largest move; the mean move in the first and in the last third of the rows that both have; and a verdict,
        ``"same"``, ``"forgets"`` (the last is at most a tenth of the first) or ``"does not forget"``.
    """
    found = []
    for column, frame in whole.items():
        before = frame[frame.index >= start]
        after = late.get(column, pd.DataFrame(index=before.index[:0])).reindex(
            index=before.index, columns=before.columns
        )
        one, two = before.to_numpy(float), after.to_numpy(float)
        both = np.isfinite(one) & np.isfinite(two)
        missing = int((np.isfinite(one) & ~np.isfinite(two)).sum())
        row: dict[str, object] = {"start": start, "column": column, "compared": int(both.sum()), "missing": missing}
        if not both.any():
            found.append(
                row | dict.fromkeys(("median", "largest", "early", "late"), np.nan) | {"verdict": "no outputs"}
            )
            continue
        scale = scales[column].reindex(before.columns).to_numpy(float)
        size = np.abs(np.where(both, one - two, 0.0)) / np.where(scale > 0, scale, 1.0)
        thirds = np.array_split(np.flatnonzero(both.any(1)), 3)
        early, last = (float(size[part][both[part]].mean()) if len(part) else 0.0 for part in (thirds[0], thirds[-1]))
        same = not unequal(np.where(both, one, 0.0), np.where(both, two, 0.0), scale, rtol).any()
        fallen = last <= max(rtol, _FALLEN * early)
        verdict = "same" if same else "forgets" if fallen else "does not forget"
        numbers = {"median": float(np.median(size[both])), "largest": float(size[both].max())}
        found.append(row | numbers | {"early": early, "late": last, "verdict": verdict})
    return found
