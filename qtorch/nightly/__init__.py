"""The nightly batch job: configuration, gates, run, store, report."""

from qtorch.nightly.compaction import compact
from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.job import Result, run
from qtorch.nightly.outcome import ExitCode, Locked, NotASession, Refused
from qtorch.nightly.retention import retain
from qtorch.nightly.sinks import SinkError, publish
from qtorch.nightly.sql_sink import to_sql
from qtorch.nightly.store import history

__all__ = [
    "ExitCode",
    "Locked",
    "NightlyConfig",
    "NotASession",
    "Refused",
    "Result",
    "SinkError",
    "compact",
    "history",
    "publish",
    "retain",
    "run",
    "to_sql",
]
