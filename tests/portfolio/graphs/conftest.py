"""Markets from which graphs are built."""

import pytest

from qtorch.data import Panel, SyntheticMarket
from qtorch.data.synthetic import Absences, Simulation


@pytest.fixture(scope="package")
def market() -> Simulation:
    """Three markets that close at different hours, with listings, delistings, halts and faults."""
    absences = Absences(late=0.4, early=0.4, halts=0.01, halt_length=4.0, faults=0.02)
    exchanges = {"XNYS": 5, "XLON": 4, "XTKS": 4}
    return SyntheticMarket(exchanges, start="2014-01-06", end="2016-12-30", absences=absences, seed=4).simulate()


@pytest.fixture(scope="package")
def market_panel(market) -> Panel:
    return Panel.from_frame(market.frame)
