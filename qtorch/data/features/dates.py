"""What the calendar tells, ahead of time too."""

from dataclasses import dataclass

import numpy as np

from qtorch.data.features.feature import Feature, OwnSessions


@dataclass(frozen=True)
class GapDays(Feature):
    """Calendar days since the asset's previous close, as a log up to 30: a return over a weekend varies more."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("gap_days",)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return np.log(np.clip(sessions.day - sessions.day_before, 1, 30))[:, :, None]


@dataclass(frozen=True)
class NextGapDays(Feature):
    """Calendar days to the next session of the asset's exchange, as a log up to 30; calendars are known ahead."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("next_gap_days",)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return np.log(np.clip(sessions.next_day - sessions.day, 1, 30))[:, :, None]


@dataclass(frozen=True)
class DayOfWeek(Feature):
    """The session's day of the week as a point on the circle, Monday at (1, 0)."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("weekday_cos", "weekday_sin")

    def own(self, sessions: OwnSessions) -> np.ndarray:
        angle = 2 * np.pi * ((sessions.day + 3) % 7) / 7  # 1970-01-01 was a Thursday
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@dataclass(frozen=True)
class MonthEnd(Feature):
    """1 on the last session of a month, known ahead from the calendar, else 0."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("month_end",)

    def own(self, sessions: OwnSessions) -> np.ndarray:
        inside = sessions.inside
        month, following = (
            np.where(inside, day, 0).astype("M8[D]").astype("M8[M]").astype(np.int64)
            for day in (sessions.day, sessions.next_day)
        )
        return np.where(inside, month != following, np.nan)[:, :, None]
