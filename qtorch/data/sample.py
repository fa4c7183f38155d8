"""The sample market that ships with the package."""

from pathlib import Path

import pandas as pd

from qtorch.data.rows import ParquetRows


def sample_path() -> Path:
    """The sample's Parquet file: beside this module when installed from a wheel, in `data/` of a checkout."""
    beside = Path(__file__).with_name("markets.parquet")
    return beside if beside.exists() else Path(__file__).parents[2] / "data" / "markets.parquet"


def load_sample() -> pd.DataFrame:
    """Real daily prices to the end of 2022, in long format: 20 US stocks, 2 US indices, WTI crude, 12 euro rates.

    The exchanges are ``XNYS`` and ``XECB`` (the ECB's reference rates), whose holidays differ on some 200 days;
    the indices and crude end in December 2018 and January 2019. `data/README.md` names sources and licences.

    Returns:
        Columns `date, asset, exchange, open, high, low, close, volume`, sorted by date and asset. The stocks'
        closes are adjusted for splits and dividends; the rates are units of the currency for one euro. Only the
        indices have open, high, low and volume.

    Example:
        >>> load_sample().groupby("exchange")["asset"].nunique().to_dict()
        {'XECB': 12, 'XNYS': 23}
    """
    return ParquetRows(sample_path()).frame()
