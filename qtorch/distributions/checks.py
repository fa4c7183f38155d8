"""Checks of settings at the public boundary."""


def require(condition: bool, setting: str, value: object, remedy: str) -> None:
    """Refuses a setting that does not meet a condition.

    Raises:
        ValueError: it does not; the message names the setting, its value and the remedy.
    """
    if not condition:
        raise ValueError(f"{setting}={value}: {remedy}.")
