"""In which currency each asset is priced, and what that is worth in the account's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from qtorch.data import DataError, sessions
from qtorch.data.calendars import AnyCalendar, code_of
from qtorch.data.errors import listing


@dataclass(frozen=True, eq=False)
class Currencies:
    """Exchange rates into an account's currency, by date.

    A date's rate counts for all that is filled or valued on it. It is carried forward over dates without a session of
    the currency market, and over no others: on those a missing rate is an error.

    Attributes:
        rates: units of the base currency for one of each currency, a column each, by date; NaN is no rate.
        of: the currency of each asset.
        base: the account's, which needs no rate.
        exchange: the calendar of the rates: ``"FX"`` has Mondays to Fridays, ``"XECB"`` the ECB's reference rates.

    Raises:
        DataError: a currency has no column; dates twice, with a time zone or out of order; a rate that is not above 0.

    Example:
        >>> rates = pd.DataFrame({"JPY": [0.0070, 0.0072]}, pd.to_datetime(["2024-05-02", "2024-05-03"]))
        >>> yen = Currencies(rates, {"7203": "JPY", "AAPL": "USD"}, "USD")
        >>> yen.on(pd.to_datetime(["2024-05-03", "2024-05-05"]), ["7203", "AAPL"], 0)
        array([[0.0072, 1.    ],
               [0.0072, 1.    ]])
    """

    rates: pd.DataFrame
    of: Mapping[str, str]
    base: str
    exchange: AnyCalendar = "FX"

    def __post_init__(self) -> None:
        """Checks the rates."""
        index = self.rates.index
        if not (isinstance(index, pd.DatetimeIndex) and index.tz is None and index.is_monotonic_increasing):
            raise DataError("rates need an index of dates, without a time zone and in order.")
        if not index.is_unique:
            raise DataError(f"rates twice for {listing(index[index.duplicated()])}. Keep one row of each date.")
        without = sorted(set(self.of.values()) - {self.base} - set(self.rates.columns))
        if without:
            raise DataError(f"no rates of {listing(without)} in {self.base}. Add a column for each.")
        for currency, column in self.rates.items():
            wrong = index[((column <= 0) | np.isinf(column)).to_numpy()]
            if len(wrong):
                raise DataError(f"{currency}: rates that are not above 0 on {listing(wrong)}. Correct or drop them.")

    def on(self, dates: pd.DatetimeIndex, assets: Sequence[str], first: int) -> Float64[np.ndarray, "T N"]:
        """The rate of each asset's currency on each date; NaN before the row `first`, but for the base currency's.

        Raises:
            DataError: an asset's currency is not known, or a rate is missing.
        """
        unknown = [asset for asset in assets if asset not in self.of]
        if unknown:
            raise DataError(f"the currency of {listing(unknown)} is not known. Name it in `of`.")
        mine = [self.of[asset] for asset in assets]
        rates = {currency: self._of_currency(currency, dates[first:]) for currency in dict.fromkeys(mine)}
        out = np.full((len(dates), len(assets)), np.nan)
        for n, currency in enumerate(mine):
            out[first:, n] = rates[currency]
            if currency == self.base:
                out[:first, n] = 1.0
        return out

    def _of_currency(self, currency: str, dates: pd.DatetimeIndex) -> np.ndarray:
        if currency == self.base or not len(dates):
            return np.ones(len(dates))
        given = self.rates[currency].dropna()
        start = dates[0] - pd.Timedelta(days=14)
        if len(given):
            start = min(dates[0], max(start, given.index[0]))  # a calendar may begin with the rates
        days = sessions(self.exchange, start, dates[-1]).days
        last, latest = given.index.searchsorted(dates, side="right") - 1, days.searchsorted(dates, side="right") - 1
        at = given.index[np.maximum(last, 0)] if len(given) else dates
        fresh = (last >= 0) & ((at == dates) | ((latest >= 0) & (at >= days[np.maximum(latest, 0)])))
        if not fresh.all():
            missing = dates[~fresh]
            raise DataError(
                f"no rate of {currency} in {self.base} on {listing(f'{date:%Y-%m-%d}' for date in missing)}, with a "
                f"session of {code_of(self.exchange)} since the last one. Add it, or name the calendar of the rates."
            )
        return given.to_numpy(dtype=float)[last]
