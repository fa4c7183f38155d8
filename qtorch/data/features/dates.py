"""What the calendar tells, ahead of time too."""

from dataclasses import dataclass

import numpy as np

from qtorch.data.features.feature import Feature, OwnSessions
from qtorch.errors import ArgumentError


@dataclass(frozen=True)
class GapDays(Feature):
    """Calendar days since the asset's previous close, as a log up to 30: a return over a weekend varies more."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("gap_days",)

    @property
    def reach(self) -> int:
        """Its own entry alone."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return np.log(np.clip(sessions.day - sessions.day_before, 1, 30))[:, :, None]


@dataclass(frozen=True)
class NextGapDays(Feature):
    """Calendar days to the next session of the asset's exchange, as a log up to 30; calendars are known ahead."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("next_gap_days",)

    @property
    def reach(self) -> int:
        """Its own entry alone."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        return np.log(np.clip(sessions.next_day - sessions.day, 1, 30))[:, :, None]


@dataclass(frozen=True)
class DayOfWeek(Feature):
    """The session's day of the week as a point on the circle, Monday at (1, 0)."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("weekday_cos", "weekday_sin")

    @property
    def reach(self) -> int:
        """Its own entry alone."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        angle = 2 * np.pi * ((sessions.day + 3) % 7) / 7  # 1970-01-01 was a Thursday
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


@dataclass(frozen=True)
class MonthEnd(Feature):
    """1 on the last session of a month, known ahead from the calendar, else 0."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("month_end",)

    @property
    def reach(self) -> int:
        """Its own entry alone."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        inside = sessions.inside
        month, following = (
            np.where(inside, day, 0).astype("M8[D]").astype("M8[M]").astype(np.int64)
            for day in (sessions.day, sessions.next_day)
        )
        return np.where(inside, month != following, np.nan)[:, :, None]


@dataclass(frozen=True)
class ToEvent(Feature):
    """Calendar days to the next of some events whose dates are known ahead, as a log: 0 is the next day.

    For meetings of central banks, elections, an index's rebalancing, scheduled earnings. At the close of its own day an
    event is over, and the next one counts; after the last one the next is `most` days away.

    Attributes:
        name: of the event.
        dates: when it takes place, all of them that a forecaster may know: an event announced at short notice tells the
            past what it could not know.
        most: days beyond which an event is no nearer than another.

    Raises:
        ValueError: there is no date, or `most` is below 2.

    Example:
        >>> ToEvent("fomc", ("2022-11-02", "2022-12-14")).names
        ('days_to_fomc',)
    """

    name: str = "event"
    dates: tuple[str, ...] = ()
    most: int = 30

    def __post_init__(self) -> None:
        days = np.sort(np.array(self.dates, dtype="M8[D]"))
        object.__setattr__(self, "dates", tuple(str(day) for day in days))
        if not self.dates or self.most < 2:
            raise ArgumentError(f"ToEvent {self.name!r} needs dates, and most of 2 days or more, not {self.most}.")

    @property
    def names(self) -> tuple[str, ...]:
        return (f"days_to_{self.name}",)

    @property
    def reach(self) -> int:
        """Its own entry alone."""
        return 0

    def own(self, sessions: OwnSessions) -> np.ndarray:
        events = np.append(np.array(self.dates, dtype="M8[D]").astype(float), np.inf)
        following = events[events.searchsorted(np.nan_to_num(sessions.day), side="right")]
        return np.log(np.clip(following - sessions.day, 1, self.most))[:, :, None]
