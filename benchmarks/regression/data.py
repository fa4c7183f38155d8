"""Regressions on data that ships with packages, split into rows to train on, to stop by and to judge on."""

import importlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor


class Part(NamedTuple):
    """Rows of a split, standardised by its training rows."""

    x: Tensor
    y: Tensor


class Split(NamedTuple):
    """What a method is trained on, stopped by and judged on; `unit` is that of the outcomes."""

    name: str
    train: Part
    validation: Part
    test: Part
    unit: float
    epochs: int
    patience: int
    batch: int


def _split(name: str, parts: list[tuple[np.ndarray, np.ndarray]], unit: bool, **training: int) -> Split:
    x, y = parts[0]
    centre, size, level, scale = x.mean(0), x.std(0) + 1e-12, y.mean(), y.std()
    tensors = [
        Part(torch.tensor((a - centre) / size, dtype=torch.float32), torch.tensor((b - level) / scale).float())
        for a, b in parts
    ]
    return Split(name, *tensors, float(scale) if unit else 1.0, **training)


def diabetes() -> Iterator[Split]:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(y))
        known = int(0.8 * len(y))
        fitted = known - int(0.15 * known)
        parts = [(x[rows], y[rows]) for rows in np.split(order, [fitted, known])]
        yield _split(f"diabetes {seed}", parts, False, epochs=400, patience=40, batch=32)


def market(name: str) -> Iterator[Split]:
    frame = importlib.import_module(f"arch.data.{name}").load()
    returns = 100 * np.log(frame["Adj Close"]).diff()
    ranges = np.log(frame["High"] / frame["Low"]) ** 2 / (4 * math.log(2))
    inputs = {f"return {k}": returns.shift(k) for k in (1, 2, 3, 5)}
    for half_life in (5, 21, 63):
        variance = (returns**2).ewm(halflife=half_life, min_periods=63).mean().shift(1)
        inputs[f"volatility {half_life}"] = 0.5 * np.log(variance + 1e-4)
    for window in (1, 5, 22):
        inputs[f"range {window}"] = 0.5 * np.log(1e4 * ranges.rolling(window).mean().shift(1) + 1e-4)
    inputs["loss"] = returns.shift(1).clip(upper=0)
    x = pd.DataFrame(inputs)
    there = x.notna().all(axis=1) & returns.notna()
    x, y = x[there], returns[there]
    for year in range(2009, 2019, 2):
        known, tested = x.index.year < year, (x.index.year >= year) & (x.index.year < year + 2)
        before, outcomes = x[known].to_numpy(), y[known].to_numpy()
        n = len(before) - int(0.2 * len(before))
        parts = [(before[:n], outcomes[:n]), (before[n:], outcomes[n:]), (x[tested].to_numpy(), y[tested].to_numpy())]
        yield _split(f"{name} {year}", parts, True, epochs=100, patience=15, batch=128)


DATA: dict[str, Callable[[], Iterator[Split]]] = {
    "diabetes": diabetes,
    "sp500": lambda: market("sp500"),
    "nasdaq": lambda: market("nasdaq"),
}
SERIES = ("sp500", "nasdaq")  # whose rows are sessions in order
