"""The nightly batch job: configuration, gates, run, store, report."""

from qtorch.nightly.config import NightlyConfig
from qtorch.nightly.job import Result, run
from qtorch.nightly.outcome import ExitCode, NotASession, Refused

__all__ = ["ExitCode", "NightlyConfig", "NotASession", "Refused", "Result", "run"]
