"""Saved allocators decide the same bits, and a file can name nothing that its reader does not allow."""

from functools import partial

import pandas as pd
import pytest
import torch

from qtorch.data import Panel, WindowSpec
from qtorch.deploy import BundleError, SavedAllocator, inspect_bundle, load, save
from qtorch.models import AssetGraph, GraphCovariance, GraphScores, OverGraph, OverLearnedGraph, OverTree, Recurrent
from qtorch.nn.graph import GATv2, RelationalGCN, TreeLSTM
from qtorch.portfolio import Constraints, Costs, MinimumVariance, Projected
from qtorch.portfolio.graphs import GraphBuilder, LearnedGraph, ewma_correlation, k_nearest, shrunk
from qtorch.training import Allocator
from tests.conftest import make_prices
from tests.deploy.conftest import edit

SPEC = WindowSpec(8, (1,))
EXCHANGES = {"A": "XNYS", "B": "XNYS", "C": "XLON", "D": "XLON"}


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel.from_frame(make_prices(EXCHANGES, "2019-01-02", "2019-08-30", 0))


def allocator(layer: torch.nn.Module | None = None) -> Allocator:
    torch.manual_seed(0)
    mixers = [
        OverGraph(RelationalGCN(8, 8, kinds=2)),
        OverTree(TreeLSTM(8, 5)),
        OverLearnedGraph(LearnedGraph(8, k=2, width=4), GATv2(8, 4, heads=2, weighted=True)),
    ]
    states = AssetGraph(Recurrent(len(SPEC.features), width=4), estimates=2, width=8, mixers=mixers)
    network = GraphScores(states)
    graphs = GraphBuilder(
        partial(ewma_correlation, half_life=90.0),
        partial(k_nearest, k=2),
        shrinkage=partial(shrunk, target="identity"),
        labels=EXCHANGES,
    )
    made = Allocator(
        network,
        layer or Projected(Constraints(upper=0.6, caps={"exchange": 0.7})),
        SPEC,
        half_lives=(30.0, 60.0),
        graphs=graphs,
        groups={"exchange": EXCHANGES | {"Z": None}},
        every=5,
        length=3,
        costs=Costs(proportional=0.002, cash=0.0001),
        min_history=50,
        stale=3,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return made.eval()


@pytest.fixture
def folder(tmp_path):
    save(allocator(), tmp_path, {"until": "2019-08-30"})
    return tmp_path


def test_a_saved_allocator_decides_the_same_bits(folder, panel):
    model = allocator()
    again, about = load(folder, Allocator)
    assert about == {"until": "2019-08-30"}
    assert not again.training
    dates = panel.dates[[120, 150]]
    pd.testing.assert_frame_equal(again.allocate(panel, dates), model.allocate(panel, dates), check_exact=True)
    for name in ("half_lives", "every", "length", "min_history", "stale", "groups", "graphs", "costs", "spec"):
        assert getattr(again, name) == getattr(model, name), name
    held = {"A": 0.5, "C": 0.5}
    one, other = (SavedAllocator(folder) for _ in range(2))
    holdings = torch.tensor([held.get(asset, 0.0) for asset in panel.assets], dtype=torch.float64)
    weights = one(panel, len(panel.dates) - 1, holdings)
    expected = model.allocate(panel, panel.dates[-1], held).iloc[0]
    assert weights.tolist() == expected.tolist()
    assert torch.equal(other(panel, len(panel.dates) - 1, holdings), weights)


def test_one_kind_is_not_taken_for_the_other(folder, model, tmp_path):
    with pytest.raises(BundleError, match="holds a model of kind Allocator, but Forecaster is wanted"):
        load(folder)
    save(model, tmp_path / "forecaster")
    assert inspect_bundle(folder)["kind"] == "Allocator"
    with pytest.raises(BundleError, match="of kind Forecaster, but Allocator is wanted"):
        SavedAllocator(tmp_path / "forecaster")


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("network", "class_path"), "os.system", "outside the allowed packages"),
        (
            ("network", "init_args", "states", "init_args", "mixers", 0, "class_path"),
            "os.system",
            "outside the allowed",
        ),
        (("allocation", "class_path"), "qtorch.portfolio.Costs", "is not a torch.nn.Module"),
        (("graphs", "sparsifier"), {"class_path": "os.system", "init_args": {}}, "outside the allowed packages"),
        (("graphs", "correlation", "class_path"), "qtorch.portfolio.graphs.nothing", "does not exist"),
        (("graphs", "correlation", "class_path"), "qtorch.portfolio.graphs.Graph", "does not exist"),
        (("graphs", "correlation", "class_path"), "qtorch.portfolio.graphs.GraphBuilder", "is not a function"),
        (("graphs", "correlation", "class_path"), "qtorch.nightly.run", "outside the allowed packages"),
        (("graphs", "sparsifier", "class_path"), "qtorch.portfolio.graphs.builder.construct", "outside the allowed"),
        (("graphs", "labels"), 7, "not a usable model"),
        (("half_lives",), ["long"], "not a usable model"),
        (("settings", "nothing"), 1, "unexpected keyword argument 'nothing'"),
        (("settings",), {}, "not a usable model"),
        (("settings", "stale"), 5.0, "stale=5.0 is no whole number"),
        (("settings", "every"), 0, "every=0"),
        (("costs",), {"proportional": -1.0}, "proportional"),
    ],
)
def test_a_harmed_bundle_is_refused(folder, keys, value, words):
    edit(folder, *keys, value=value)
    with pytest.raises(BundleError, match=words):
        load(folder, Allocator)


def test_a_file_does_not_say_what_may_be_named(folder):
    edit(folder, "graphs", "allow", value=["os"])
    edit(folder, "graphs", "shrinkage", value={"class_path": "os.getcwd", "init_args": {}})
    with pytest.raises(BundleError, match="outside the allowed packages"):
        load(folder, Allocator)


def test_a_covariance_is_kept_too(panel, tmp_path):
    torch.manual_seed(0)
    states = AssetGraph(Recurrent(len(SPEC.features), width=4), estimates=2, width=8)
    model = Allocator(GraphCovariance(states), MinimumVariance(upper=0.5), SPEC, min_history=50).eval()
    save(model, tmp_path)
    dates = panel.dates[150:151]
    pd.testing.assert_frame_equal(load(tmp_path, Allocator)[0].allocate(panel, dates), model.allocate(panel, dates))
