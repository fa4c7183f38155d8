"""Four assets of three exchanges, with opens, a halt, a late listing and a delisting."""

import numpy as np
import pandas as pd
import pytest

from qtorch.backtest import Orders, Signals
from qtorch.data import Panel, State
from tests.conftest import make_prices

EXCHANGES = {"US1": "XNYS", "JP1": "XTKS", "UK1": "XLON", "US2": "XNYS", "OLD": "XLON", "NEW": "XTKS"}


@pytest.fixture(scope="session")
def world() -> Panel:
    """Golden Week of ten days, Independence Day and bank holidays."""
    frame = make_prices(EXCHANGES, "2019-03-01", "2019-09-30")
    frame["open"] = frame["close"] * np.random.default_rng(5).uniform(0.98, 1.02, len(frame))
    late = (frame["asset"] == "NEW") & (frame["date"] < "2019-05-20")
    over = (frame["asset"] == "OLD") & (frame["date"] > "2019-08-09")
    halted = (frame["asset"] == "US1") & frame["date"].between("2019-06-05", "2019-06-12")
    return Panel.from_frame(frame[~late & ~over & ~halted], delisted={"OLD": "2019-08-09"})


def random_orders(
    world: Panel, fill: str, sizing: str, seed: int = 0, least: float = -0.08, most: float = 0.15
) -> Orders:
    """Weights of two dates in five, of which a third of the assets has none; a rest of the equity stays in cash."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(least, most, (len(world.dates), len(world.assets)))
    weights[rng.random(weights.shape) < 0.3] = np.nan
    if fill == "this_close":
        weights[~world.mask.numpy()] = np.nan
    before = (world.state == State.UNLISTED).numpy()
    weights[before | np.roll(before, 1, axis=0)] = np.nan  # known sizing needs a close before the fill
    frame = pd.DataFrame(weights, world.dates, world.assets)
    frame = frame.iloc[4:][rng.random(len(frame) - 4) < 0.4]
    known_at = "close" if fill == "this_close" else None
    return Signals.from_panel(world, frame, known_at=known_at, fill=fill, sizing=sizing).orders(world)
