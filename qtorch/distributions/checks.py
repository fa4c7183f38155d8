"""Checks of settings at the public boundary."""

from qtorch.errors import ArgumentError


def require(condition: bool, setting: str, value: object, remedy: str) -> None:
    """Refuses a setting that does not meet a condition.

    Raises:
        ArgumentError: it does not; the message names the setting, its value and the remedy.
    """
    if not condition:
        raise ArgumentError(f"{setting}={value}: {remedy}.")
