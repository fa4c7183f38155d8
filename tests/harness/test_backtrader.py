"""The code of docs/how-to/backtrader.md, as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qtorch.backtest import Ledger
from qtorch.portfolio import Costs
from tests.harness.conftest import random_orders
from tests.harness.test_equal_equity import CONVENTIONS

pytestmark = pytest.mark.harness

RECIPE = Path(__file__).parents[2] / "docs" / "how-to" / "backtrader.md"


@pytest.fixture(scope="module")
def recipe() -> dict:
    """Names that the block defines; it also compares an account of its own with the ledger's."""
    (block,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(), flags=re.DOTALL)
    names: dict = {"__name__": __name__}  # of a module, in which backtrader looks its strategies up
    exec(compile(block, RECIPE.name, "exec"), names)
    return names


@pytest.fixture
def run_backtrader(recipe) -> Callable:
    return recipe["run_backtrader"]


@pytest.mark.parametrize("rate", [0.0, 0.002])
@pytest.mark.parametrize(("fill", "sizing"), CONVENTIONS)
def test_equity_is_the_ledgers(world, run_backtrader, fill: str, sizing: str, rate: float):
    orders, costs = random_orders(world, fill, sizing), Costs(proportional=rate)
    account = Ledger(costs, cash=1e6).run(orders)
    np.testing.assert_allclose(run_backtrader(orders, costs), account.equity, rtol=1e-8)


def test_it_borrows_as_the_ledger_does(world, run_backtrader):
    orders, costs = random_orders(world, "next_open", "fill", least=-0.5, most=0.9), Costs(proportional=0.002)
    account = Ledger(costs, cash=1e6).run(orders)
    assert (account.cash < 0).any()
    np.testing.assert_allclose(run_backtrader(orders, costs), account.equity, rtol=1e-8)


def test_an_order_that_is_not_filled_stops_the_run(world, run_backtrader):
    orders = random_orders(world, "next_open", "fill", least=-0.5, most=0.9)
    with pytest.raises(RuntimeError, match=r"Margin. Give more credit"):
        run_backtrader(orders, credit=0.0)
