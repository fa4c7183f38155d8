"""Nights that are written by hand, small and quick."""

import json
from pathlib import Path

import pandas as pd

from qtorch.data.whole_folder import whole_folder
from qtorch.nightly.schema import SCHEMA_VERSION
from qtorch.nightly.tables import no_portfolio, write_table


def write_night(
    output: Path, day: str, *, value: float = 0.02, calibrated: bool = False, bundle: str = "", **about
) -> Path:
    """A night of two assets, one without a forecast."""
    forecasts = pd.DataFrame(
        {
            "asset": ["A", "A", "B", "B"],
            "horizon": 1,
            "level": [0.95, 0.99, 0.95, 0.99],
            "value_at_risk": [value, 2 * value, float("nan"), float("nan")],
            "expected_shortfall": [2 * value, 3 * value, float("nan"), float("nan")],
            "exchange": "XNYS",
            "state": "OBSERVED",
            "last_price": pd.Timestamp(day),
            "status": ["ok", "ok", "refused", "refused"],
            "reason": ["", "", "too little history", "too little history"],
        }
    )
    if calibrated:
        forecasts["calibrated_value_at_risk"] = forecasts["value_at_risk"] * 1.5
    backtest = pd.DataFrame({"asset": ["A"], "model": "qtorch", "level": 0.99, "observations": 250, "exceedances": 3})
    target = output / f"as_of={day}"
    with whole_folder(target) as folder:
        write_table(forecasts, folder / "forecasts.parquet")
        write_table(no_portfolio(), folder / "portfolio.parquet")
        write_table(backtest, folder / "backtest.parquet")
        (folder / "report.html").write_text("<p>")
        manifest = {
            "as_of": day,
            "exit_code": 3,
            "failed_assets": {"B": "too little history"},
            "model": {"bundle": f"trained={day[:7]}-01", "age_sessions": 2},
            "seconds": {"forecast": value},
            "schema_version": SCHEMA_VERSION,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest | about))
    return target


DAYS = ["2026-01-28", "2026-01-29", "2026-01-30", "2026-02-02", "2026-02-03", "2026-03-02", "2026-03-03"]


def write_nights(output: Path) -> Path:
    """Seven nights of three months, of which some are calibrated, and models of each month and of one before."""
    for number, day in enumerate(DAYS):
        write_night(output, day, value=0.01 * (number + 1), calibrated=number % 2 == 1)
    for model in ("2025-12-01", "2026-01-01", "2026-02-01", "2026-03-01"):
        folder = output / "models" / f"trained={model}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
    return output
