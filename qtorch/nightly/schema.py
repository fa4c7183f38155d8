"""The columns of the tables that nights write: names, types, keys and their version."""

from collections.abc import Mapping

import pyarrow as pa

from qtorch.errors import ArgumentError

SCHEMA_VERSION = 1
"""Goes up when a column changes its name, type or meaning; a new column that may be empty leaves it as it is."""
AS_OF = "as_of"
STAMP = b"qtorch.schema_version"

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_RISK = {"value_at_risk": _REAL, "expected_shortfall": _REAL}
_CALIBRATED = {"calibrated_value_at_risk": _REAL, "calibrated_expected_shortfall": _REAL}
_COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "forecasts": {
        "asset": _TEXT,
        "horizon": _WHOLE,
        "level": _REAL,
        **_RISK,
        "volatility": _REAL,
        "degrees_of_freedom": _REAL,
        "aleatoric_volatility": _REAL,
        "epistemic_volatility": _REAL,
        "epistemic_share": _REAL,
        "value_at_risk_low": _REAL,
        "value_at_risk_high": _REAL,
        **_CALIBRATED,
        "calibrated_value_at_risk_low": _REAL,
        "calibrated_value_at_risk_high": _REAL,
        "exchange": _TEXT,
        "state": _TEXT,
        "last_price": pa.timestamp("us"),
        "status": _TEXT,
        "reason": _TEXT,
    },
    "portfolio": {
        "asset": _TEXT,
        "horizon": _WHOLE,
        "level": _REAL,
        "exposure": _REAL,
        "unit": _TEXT,
        **_RISK,
        "component_value_at_risk": _REAL,
        "component_expected_shortfall": _REAL,
        "value_at_risk_error": _REAL,
        "expected_shortfall_error": _REAL,
        **_CALIBRATED,
        "status": _TEXT,
    },
    "backtest": {
        "asset": _TEXT,
        "model": _TEXT,
        "level": _REAL,
        "observations": _WHOLE,
        "exceedances": _WHOLE,
        "expected_exceedances": _REAL,
        "kupiec_statistic": _REAL,
        "kupiec_p": _REAL,
        "independence_statistic": _REAL,
        "independence_p": _REAL,
        "conditional_coverage_p": _REAL,
        "traffic_light": _TEXT,
        "pinball": _REAL,
        "fz0": _REAL,
    },
    "allocation": {
        "asset": _TEXT,
        "state": _TEXT,
        "current_weight": _REAL,
        "target_weight": _REAL,
        "trade_weight": _REAL,
        "trade_value": _REAL,
        "reason": _TEXT,
    },
}
KEYS: Mapping[str, tuple[str, ...]] = {
    "forecasts": ("asset", "horizon", "level"),
    "portfolio": ("asset", "horizon", "level"),
    "backtest": ("asset", "model", "level"),
    "allocation": ("asset",),
}
"""What tells a night's rows apart, by table."""
TABLES: Mapping[str, pa.Schema] = {
    name: pa.schema([(AS_OF, pa.date32()), *columns.items()], metadata={STAMP: str(SCHEMA_VERSION)})
    for name, columns in _COLUMNS.items()
}
"""By table, the schema in which `qtorch.nightly.history` reads every night, those that lack a column included."""


def stamped(table: pa.Table, name: str) -> pa.Table:
    """A night's table with the schema's version in its metadata.

    Args:
        table: as it is to be written.
        name: of the table.

    Raises:
        ValueError: it has a column that the schema does not know, which no reader would see.
    """
    if name in TABLES and (unknown := [column for column in table.column_names if column not in TABLES[name].names]):
        raise ArgumentError(
            f"{name}: {', '.join(unknown)} is no column of schema version {SCHEMA_VERSION}; add it to "
            "qtorch/nightly/schema.py."
        )
    return table.replace_schema_metadata({**(table.schema.metadata or {}), STAMP: str(SCHEMA_VERSION).encode()})


def check_version(version: int, what: str) -> None:
    """Nights of this version and of older ones are read; those before version 1 have its columns, but no stamp.

    Raises:
        ValueError: the version is of a later qtorch.
    """
    if not 0 <= version <= SCHEMA_VERSION:
        raise ArgumentError(
            f"{what} has tables of schema version {version}, and this qtorch knows those up to {SCHEMA_VERSION}: read "
            "it with the qtorch that wrote it, or a later one."
        )
