"""A calibrator run over a stored history."""

from copy import deepcopy

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from qtorch.calibration.calibrated import CalibratedForecast
from qtorch.calibration.online import OnlineCalibrator, corrected
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast


def backtest(
    calibrator: OnlineCalibrator,
    forecast: Forecast,
    returns: Float[Tensor, "D H N"],
    known: Int64[Tensor, "D H N"] | None = None,
) -> CalibratedForecast:
    """What a calibrator would have issued at each date, from the outcomes known by then alone.

    Args:
        calibrator: left as it is; what it has learned already counts.
        forecast: raw, as of `OnlineCalibrator.update`, all of whose dates are new to the calibrator.
        returns: what came, NaN where not observed.
        known: as of `OnlineCalibrator.update`.

    Raises:
        ValueError: as of `OnlineCalibrator.update`, or a date is not new.
    """
    return replay(deepcopy(calibrator), forecast, returns, known)


def replay(
    calibrator: OnlineCalibrator,
    forecast: Forecast,
    returns: Float[Tensor, "D H N"],
    known: Int64[Tensor, "D H N"] | None = None,
) -> CalibratedForecast:
    """The same, while the calibrator itself learns, so that it goes on from the last date.

    Args:
        calibrator: changed as by `OnlineCalibrator.update`.
        forecast: as of `backtest`.
        returns: as of `backtest`.
        known: as of `backtest`.

    Raises:
        ValueError: as of `backtest`.
    """
    issued = [correction for _, correction in calibrator.walk(forecast, returns, known)]
    if len(issued) != len(forecast.dates):
        raise ArgumentError(
            f"{len(forecast.dates) - len(issued)} of the {len(forecast.dates)} dates are not new to the calibrator. "
            "Give one that has not seen them."
        )
    mass, shift = (torch.stack(parts, dim=1) for parts in zip(*issued, strict=True))
    return corrected(forecast, calibrator.levels, mass, shift)
