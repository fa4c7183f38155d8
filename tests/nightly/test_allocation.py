import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest import InverseVolatility
from qtorch.data import DataError, Panel, WindowSource, WindowSpec
from qtorch.deploy import save
from qtorch.models import AssetGraph, GraphCovariance, OverTree, Recurrent
from qtorch.nightly import NightlyConfig, Refused, run
from qtorch.nightly.allocation import Allocation, allocate
from qtorch.nightly.config import AllocationConfig
from qtorch.nightly.gates import asset_states, read_panel, read_positions
from qtorch.nn.graph import TreeLSTM
from qtorch.portfolio import Constraints, Costs, MinimumVariance, project
from qtorch.training import Allocator
from tests.nightly.conftest import elsewhere, quiet
from tests.nightly.test_job import Page

INVERSE = {"class_path": "qtorch.backtest.InverseVolatility", "init_args": {"lookback": 250}}
LIVE = ["AAPL", "AMD", "EURJPY", "EURUSD", "JPM", "XOM"]
KIND = {asset: "currency" if asset.startswith("EUR") else "stock" for asset in LIVE}


class Told:
    """An allocator that is told its weights, and counts its fits."""

    refit_every = 1

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights, self.fits = weights, 0

    def refit(self, panel: Panel, row: int) -> None:
        self.fits += 1

    def __call__(self, panel: Panel, row: int, holdings: torch.Tensor) -> pd.Series:
        assert self.fits == 1
        return pd.Series(self.weights, dtype=float)


def told(**weights: float) -> dict:
    return {"class_path": "tests.nightly.test_allocation.Told", "init_args": {"weights": weights}}


def targets(job: NightlyConfig, config: AllocationConfig, as_of: str | None = None) -> Allocation:
    """The targets of a job's data, without a model."""
    panel = read_panel(job.data, as_of)
    exposures, unit = pd.Series(dtype=float), "weight"
    if job.positions is not None:
        exposures, unit = read_positions(job.positions, panel)
    states = asset_states(panel, WindowSource(panel, job.model.windows(panel)), job.data, exposures)
    return allocate(config, panel, states, exposures, unit, allow=["tests"])


def beside(night, folder: Path, **changes) -> Path:
    """The folder of another night of the same model."""
    config, _ = night
    shutil.copytree(Path(config.output) / "models", folder / "models")
    return run(dataclasses.replace(elsewhere(config, folder), **changes), say=quiet).folder


@pytest.fixture(scope="module")
def traded(night, tmp_path_factory):
    """The night that went well, with an allocation."""
    section = AllocationConfig(
        INVERSE,
        {"upper": 0.4, "lower": -0.2, "gross": 1.2, "turnover": 1.5, "caps": {"kind": 0.6}},
        {"kind": KIND},
        Costs(proportional=0.002, cash=0.0001),
        equity=1e6,
    )
    return beside(night, tmp_path_factory.mktemp("traded"), allocation=section)


def test_targets_are_the_nearest_weights_to_the_allocators_that_keep_to_the_constraints(night, traded):
    panel = read_panel(night[0].data, None)
    held = torch.tensor([{"AAPL": 0.4, "JPM": 0.3, "EURUSD": 0.4, "EURJPY": -0.1}.get(a, 0.0) for a in panel.assets])
    live = torch.tensor([a in LIVE for a in panel.assets])
    asked = InverseVolatility(250)(panel, len(panel.dates) - 1, held.double())
    limits = Constraints(upper=0.4, lower=-0.2, gross=1.2, turnover=1.5, caps={"kind": 0.6})
    groups = {"kind": torch.tensor([int(not a.startswith("EUR")) for a in panel.assets])}
    expected = project(asked, limits, live, holdings=held.double(), tradable=panel.mask[-1], groups=groups)
    table = pd.read_parquet(traded / "allocation.parquet")
    assert list(table) == [
        "asset", "state", "current_weight", "target_weight", "trade_weight", "trade_value", "reason",
    ]  # fmt: skip
    assert sorted(table["asset"]) == LIVE  # the index that ended is left out
    by_name = dict(zip(panel.assets, expected.tolist(), strict=True))
    np.testing.assert_allclose(table["target_weight"], table["asset"].map(by_name), atol=1e-12)
    np.testing.assert_allclose(table["trade_weight"], table["target_weight"] - table["current_weight"], atol=1e-15)
    np.testing.assert_allclose(table["trade_value"], 1e6 * table["trade_weight"])
    assert (table["target_weight"] <= 0.4 + 1e-12).all()
    assert table.groupby(table["asset"].map(KIND))["target_weight"].sum().max() == pytest.approx(0.6)


def test_the_manifest_sums_the_trades_up(night, traded):
    table = pd.read_parquet(traded / "allocation.parquet")
    manifest = json.loads((traded / "manifest.json").read_text())
    facts = manifest["allocation"]
    two_way = table["trade_weight"].abs().sum()
    assert facts["one_way_turnover"] == pytest.approx(two_way / 2)
    assert facts["expected_cost"] == pytest.approx(0.002 * two_way)
    spare = 1 - 0.002 * two_way - table["target_weight"].abs().sum()
    assert spare < 0  # so that no cash earns interest
    assert facts["interest"] == 0
    assert facts["gross"] == pytest.approx(table["target_weight"].abs().sum())
    assert facts["net"] == pytest.approx(1.0)
    assert facts["largest_weight"] == table["target_weight"].abs().max()
    assert set(facts["violations"]) == {"budget", "lower", "upper", "gross", "turnover", "kind"}
    assert set(facts["violations"].values()) == {0.0}
    portfolio = pd.read_parquet(traded / "portfolio.parquet")
    whole = portfolio[(portfolio["asset"] == "PORTFOLIO") & (portfolio["horizon"] == 1)].set_index("level")
    for level in (0.95, 0.975, 0.99):
        for measure in ("value_at_risk", "expected_shortfall"):
            assert facts["risk"]["before"][str(level)][measure] == pytest.approx(whole.loc[level, measure])
            assert 0 < facts["risk"]["after"][str(level)][measure] < 0.2
    assert manifest["config"]["allocation"]["allocator"] == INVERSE
    assert {"allocation", "trades' risk"} < set(manifest["seconds"])


def test_who_holds_the_targets_has_their_risk_and_nothing_to_trade(night, traded, tmp_path):
    table = pd.read_parquet(traded / "allocation.parquet")
    wish = dict(zip(table["asset"], table["target_weight"], strict=True))
    pd.Series(wish, name="weight").rename_axis("asset").reset_index().to_parquet(tmp_path / "next.parquet")
    section = AllocationConfig({"class_path": "qtorch.backtest.EqualWeight"}, {"lower": None, "turnover": 0.0})
    there = beside(night, tmp_path / "out", positions=str(tmp_path / "next.parquet"), allocation=section)
    portfolio = pd.read_parquet(there / "portfolio.parquet")
    whole = portfolio[(portfolio["asset"] == "PORTFOLIO") & (portfolio["horizon"] == 1)].set_index("level")
    after = json.loads((traded / "manifest.json").read_text())["allocation"]["risk"]["after"]
    for level in (0.95, 0.99):
        assert after[str(level)]["value_at_risk"] == pytest.approx(whole.loc[level, "value_at_risk"])
        assert after[str(level)]["expected_shortfall"] == pytest.approx(whole.loc[level, "expected_shortfall"])
    facts = json.loads((there / "manifest.json").read_text())["allocation"]
    assert facts["trades"] == facts["one_way_turnover"] == facts["expected_cost"] == 0
    assert facts["risk"]["before"] == facts["risk"]["after"]
    assert "Nothing to trade." in (there / "report.html").read_text()


def test_nothing_else_of_the_night_changes(night, traded):
    before = night[1].folder
    for name in ("forecasts.parquet", "portfolio.parquet", "backtest.parquet"):
        assert (traded / name).read_bytes() == (before / name).read_bytes()
    assert not (before / "allocation.parquet").exists()
    assert "allocation" not in json.loads((before / "manifest.json").read_text())
    with_, without = ((folder / "report.html").read_text() for folder in (traded, before))
    start = with_.index("<section>\n  <h2>Tonight's trades</h2>")
    end = with_.index("<section>\n  <h2>How they were forecast")
    assert with_[:start] + with_[end:] == without


def test_the_report_shows_the_trades_on_a_well_formed_page(traded):
    text = (traded / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    shown = text[text.index("Tonight's trades") : text.index("How they were forecast")]
    for words in ("Turnover, one way", "Expected cost", "of 1,000,000", "before", "sell", "buy", "Target"):
        assert words in shown
    assert "nan" not in shown.lower()
    assert "break constraints" not in shown


@pytest.mark.usefixtures("without_pictures")
def test_what_is_closed_stays_and_the_others_are_chosen_around_it(job):
    section = AllocationConfig(told(EURUSD=0.5, EURJPY=0.5), {"upper": 0.45}, costs=Costs(proportional=0.001))
    done = targets(job(positions={"AAPL": 0.5, "EURUSD": 0.5}), section, as_of="2021-11-25")  # Thanksgiving
    table = done.table.set_index("asset")
    assert table.loc["AAPL", ["state", "reason"]].tolist() == ["CLOSED", "closed"]
    assert table.loc["AAPL", "target_weight"] == 0.5  # beyond its bound, but untouched
    assert table.loc["JPM", "target_weight"] == 0
    np.testing.assert_allclose(table.loc[["EURUSD", "EURJPY"], "target_weight"], 0.25)
    assert set(done.excess.values()) == {0.0}
    assert done.cost == pytest.approx(0.001 * 0.5)


@pytest.mark.usefixtures("without_pictures")
def test_closed_positions_beyond_the_budget_leave_nothing_for_others(job):
    done = targets(job(positions={"AAPL": 1.2, "EURUSD": 0.1}), AllocationConfig(told(EURJPY=1.0)), as_of="2021-11-25")
    table = done.table.set_index("asset")
    assert table["target_weight"].to_dict() == {name: 1.2 if name == "AAPL" else 0.0 for name in table.index}
    assert set(done.excess.values()) == {0.0}


@pytest.mark.usefixtures("without_pictures")
def test_what_left_the_universe_is_sold_where_it_can_be(job, market):
    young = market[(market["asset"] != "AMD") | (market["date"] > "2021-11-30")]
    held = {"AMD": 0.3, "SP500": 0.2, "AAPL": 0.5}
    table = targets(job(young, held), AllocationConfig(told(AAPL=0.4, AMD=0.6))).table.set_index("asset")
    assert table.loc["AMD", "target_weight"] == 0
    assert table.loc["AMD", "reason"] == "sold: not in the universe (too little history: 21 returns, needs 60)"
    assert table.loc["SP500", "target_weight"] == 0.2  # it has no price to be sold at
    assert table.loc["SP500", "reason"] == "no price tonight"
    assert table["target_weight"].sum() == pytest.approx(1.0)


@pytest.mark.usefixtures("without_pictures")
def test_market_values_make_weights_and_trades_of_them(job):
    config = job()
    pd.DataFrame({"asset": ["AAPL", "EURUSD"], "market_value": [3e5, 1e5]}).to_csv(config.positions, index=False)
    swap = told(AAPL=0.25, EURUSD=0.75)
    done = targets(config, AllocationConfig(swap))
    table = done.table.set_index("asset")
    assert done.equity == 4e5
    assert table.loc["AAPL", ["current_weight", "trade_value"]].tolist() == pytest.approx([0.75, -2e5])
    cash = targets(config, AllocationConfig(swap, equity=1e6)).table.set_index("asset")
    assert cash.loc["AAPL", ["current_weight", "trade_value"]].tolist() == pytest.approx([0.3, -5e4])
    pd.DataFrame({"asset": ["AAPL", "EURUSD"], "market_value": [1e5, -1e5]}).to_csv(config.positions, index=False)
    with pytest.raises(DataError, match=r"add up to 0, .*give allocation\.equity"):
        targets(config, AllocationConfig(swap))


@pytest.mark.usefixtures("without_pictures")
def test_without_positions_everything_is_bought(job):
    done = targets(dataclasses.replace(job(), positions=None), AllocationConfig(told(AAPL=0.5, XOM=0.5)))
    assert done.table["trade_weight"].sum() == pytest.approx(1.0)
    assert done.table["trade_value"].isna().all()


@pytest.mark.usefixtures("without_pictures")
def test_small_trades_are_left_out_where_the_constraints_can_be_kept_without_them(job):
    config = job(positions={"AAPL": 0.30, "AMD": 0.2, "JPM": 0.2, "XOM": 0.3})
    wish = told(AAPL=0.2, AMD=0.204, JPM=0.206, XOM=0.39)

    def traded(minimum: float, **limits) -> dict[str, float]:
        done = targets(config, AllocationConfig(wish, limits, minimum_trade=minimum))
        assert set(done.excess.values()) == {0.0}
        table = done.table.set_index("asset")["trade_weight"]
        return table[table != 0].round(12).to_dict()

    assert traded(0.001) == {"AAPL": -0.1, "AMD": 0.004, "JPM": 0.006, "XOM": 0.09}
    assert traded(0.02) == {"AAPL": -0.095, "XOM": 0.095}  # the free ones share what the others lack
    assert traded(0.2) == {}  # what is held keeps to the constraints
    assert set(traded(0.02, upper=0.295)) >= {"AAPL", "XOM"}  # a holding beyond its bound is traded
    cash = job(positions={"AAPL": 0.25, "AMD": 0.25, "JPM": 0.25, "XOM": 0.24})
    done = targets(cash, AllocationConfig(told(AAPL=0.25, AMD=0.25, JPM=0.25, XOM=0.25), minimum_trade=0.05))
    assert done.target.sum().item() == pytest.approx(1.0)  # the budget comes before the minimum
    assert set(done.excess.values()) == {0.0}


def test_limits_that_cannot_be_kept_are_refused_before_the_training(job):
    config = dataclasses.replace(job(), allocation=AllocationConfig(INVERSE, {"upper": 0.1}))
    with pytest.raises(Refused, match=r"no weights keep to allocation\.constraints.*add up to at most 0\.6"):
        run(config, say=quiet)
    assert not Path(config.output).exists()
    tight = AllocationConfig(INVERSE, {"caps": {"kind": 0.3}}, {"kind": KIND})
    with pytest.raises(Refused, match="group 0 of kind is currency, group 1 of kind is stock"):
        targets(config, tight)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"constraints": {"colour": 1.0}}, "allocation.constraints: .*colour"),
        ({"constraints": {"lower": 0.5, "upper": 0.2}}, "lower"),
        ({"constraints": {"caps": {"kind": 0.5}}}, r"give its labels in allocation\.groups\.kind"),
        (
            {"constraints": {"caps": {"kind": {"upper": [0.5]}}}, "groups": {"kind": KIND}},
            "1 limits, but its labels are currency, stock",
        ),
        ({"costs": Costs(impact=0.1)}, "impact needs volumes"),
        ({"minimum_trade": -0.1}, "minimum_trade"),
        ({"equity": 0.0}, "equity must be positive"),
    ],
)
def test_settings_that_cannot_be_are_named(section, words):
    with pytest.raises(ValueError, match=words):
        AllocationConfig(INVERSE, **section)


@pytest.mark.parametrize(
    ("allocator", "words"),
    [
        ({"class_path": "qtorch.backtest.Nothing"}, "does not exist"),
        ({"class_path": "os.path.join"}, "outside the allowed packages"),
        ({"class_path": "qtorch.portfolio.Constraints"}, "makes a Constraints, which is not called as allocate"),
    ],
)
def test_what_is_no_allocator_is_named(job, allocator, words):
    with pytest.raises(ValueError, match=words):
        targets(job(), AllocationConfig(allocator))


def test_labels_must_be_of_all_that_may_be_held_and_of_nothing_else(job):
    config, caps = job(), {"caps": {"kind": 0.6}}
    with pytest.raises(DataError, match=r"groups\.kind: no label for XOM\. Give one, or null"):
        targets(config, AllocationConfig(INVERSE, caps, {"kind": {a: k for a, k in KIND.items() if a != "XOM"}}))
    with pytest.raises(DataError, match=r"groups\.kind: not in the data: NOPE"):
        targets(config, AllocationConfig(INVERSE, caps, {"kind": {**KIND, "NOPE": "stock"}}))
    free = AllocationConfig(told(XOM=1.0), caps, {"kind": {**KIND, "XOM": None}})
    assert targets(config, free).table.set_index("asset").loc["XOM", "target_weight"] == pytest.approx(1.0)


@pytest.mark.usefixtures("without_pictures")
def test_a_saved_allocator_decides_under_the_nights_constraints(job, tmp_path):
    config, spec = job(), WindowSpec(8, (1,))
    torch.manual_seed(0)
    states = AssetGraph(Recurrent(len(spec.features), width=4), estimates=2, width=8, mixers=[OverTree(TreeLSTM(8, 4))])
    model = Allocator(GraphCovariance(states), MinimumVariance(upper=0.5), spec).eval()
    save(model, tmp_path / "allocator")
    named = {"class_path": "qtorch.deploy.SavedAllocator", "init_args": {"path": str(tmp_path / "allocator")}}
    done = targets(config, AllocationConfig(named, {"upper": 0.3}))
    panel = read_panel(config.data, None)
    held = {"AAPL": 0.4, "JPM": 0.3, "EURUSD": 0.4, "EURJPY": -0.1}
    asked = torch.tensor(model.allocate(panel, panel.dates[-1], held).iloc[0].to_numpy())
    live = torch.tensor([asset in LIVE for asset in panel.assets])
    expected = project(asked, Constraints(upper=0.3), live, holdings=done.held, tradable=panel.mask[-1])
    torch.testing.assert_close(done.target, expected, atol=1e-9, rtol=0)
    assert asked.max() > 0.3 + 1e-3, "the night's constraint is not at work"
    other = {"class_path": "qtorch.deploy.SavedAllocator", "init_args": {"path": str(tmp_path / "nothing")}}
    with pytest.raises(ValueError, match="not readable"):
        targets(config, AllocationConfig(other))
