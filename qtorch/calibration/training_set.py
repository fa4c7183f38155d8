"""What a model was trained on can't calibrate it."""

import pandas as pd

from qtorch.errors import ArgumentError


def require_unseen(dates: pd.DatetimeIndex, trained_through: pd.Timestamp | None) -> None:
    """Refuses forecasts of dates that the model was trained on: their errors are too small.

    Args:
        dates: as-of dates of forecasts whose outcomes are to calibrate.
        trained_through: the last as-of date that the model's fit used; None where nothing was fitted.

    Raises:
        ValueError: a date is not after it.
    """
    if trained_through is None:
        return
    seen = dates[dates <= trained_through]
    if len(seen):
        raise ArgumentError(
            f"{len(seen)} of the {len(dates)} forecast dates, {seen[0]:%Y-%m-%d} to {seen[-1]:%Y-%m-%d}, are not after "
            f"{trained_through:%Y-%m-%d}, through which the model was trained. Calibrate on later forecasts, or on "
            "those of a model that was trained before them."
        )
