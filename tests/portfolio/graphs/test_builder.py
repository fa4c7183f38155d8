import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from qtorch.data import Panel, State
from qtorch.nn.graph import Graph, from_pyg, to_pyg
from qtorch.portfolio.graphs import (
    GraphBuilder,
    Relation,
    ewma_correlation,
    k_nearest,
    minimum_spanning_tree,
    rolling_correlation,
    shrunk,
    threshold,
    tmfg,
)

LABELS = {"XNYS-0000": "x", "XLON-0001": "x", "XTKS-0000": "y", "XNYS-0001": "y"}
BUILDERS = [
    GraphBuilder(partial(ewma_correlation, half_life=40.0, min_common=40), partial(k_nearest, k=3), shrunk),
    GraphBuilder(partial(rolling_correlation, window=120, lead_lag=True), minimum_spanning_tree),
    GraphBuilder(partial(rolling_correlation, window=100), tmfg, labels=LABELS),
    GraphBuilder(
        partial(rolling_correlation, window=120, scale_half_life=20.0),
        partial(threshold, at=0.3),
        partial(shrunk, intensity=0.2),
        labels=[{"asset": "XNYS-0000", "label": "a", "until": "2015-06-01"}, {"asset": "XLON-0000", "label": "a"}],
        relations=[Relation("XNYS-0000", "XTKS-0001", kind=1, since="2015-07-01", mutual=False)],
    ),
]
ALL = pytest.mark.parametrize("builder", BUILDERS)


def assert_same(one: Graph, other: Graph) -> None:
    """Of the same edges; those of several builders' rows may have more places."""
    assert torch.equal(one.mask, other.mask)
    for mine, theirs in zip(one.to_edges(), other.to_edges(), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs)


@ALL
def test_edges_know_nothing_of_later_rows(market_panel, builder):
    """Nor does it matter which other rows are asked, or that the panel goes on."""
    rows = [240, 399, 560]
    found = builder(market_panel, rows)
    assert found.present.any()
    for r, row in enumerate(rows):
        values, state = market_panel.values.clone(), market_panel.state.clone()
        values[row + 1 :] = values[row + 1 :].flip(0) * 3
        state[row + 1 :] = torch.where(state[row + 1 :] == State.OBSERVED, int(State.MISSING), int(State.OBSERVED)).to(
            state.dtype
        )
        one = Graph(*(getattr(found, name)[r : r + 1] for name in ("neighbours", "present", "mask", "weights")),
                    None if found.kinds is None else found.kinds[r : r + 1])  # fmt: skip
        assert_same(builder(replace(market_panel, values=values, state=state), [row]), one)
        assert_same(builder(market_panel.until(market_panel.dates[row]), [row]), one)


@ALL
def test_a_shock_on_the_row_itself_is_seen(market_panel, builder):
    """So that the test above can fail."""
    row = 399
    values = market_panel.values.clone()
    values[row] = values[row] * torch.linspace(0.5, 2.0, 13).double()[:, None]
    one, other = builder(market_panel, [row]), builder(replace(market_panel, values=values), [row])
    assert one.to_dense()[1].sub(other.to_dense()[1]).abs().max() > 1e-3


@ALL
def test_settings_go_to_json_and_back(market_panel, builder):
    again = GraphBuilder(**json.loads(json.dumps(builder.plain())))
    assert again == builder
    assert_same(again(market_panel, [300, 500]), builder(market_panel, [300, 500]))


@ALL
def test_graphs_go_to_pytorch_geometric_and_back(market_panel, builder):
    graph = builder(market_panel, [300, 500])
    assert_same(from_pyg(to_pyg(graph))[0], graph)


def test_kinds_tell_where_edges_come_from(market_panel):
    builder = BUILDERS[3]
    rows = [market_panel.row("2015-05-29"), market_panel.row("2015-07-31")]
    graph = builder(market_panel, rows)
    plain = replace(builder, labels=None, relations=())
    assert (builder.kinds, plain.kinds) == (4, 1)
    N = len(market_panel.assets)
    edges, _, kinds = graph.to_edges()
    place = market_panel.assets.index
    new_york, london, tokyo = place("XNYS-0000"), place("XLON-0000"), place("XTKS-0001")
    assert graph.mask[:, [new_york, london, tokyo]].all()
    labelled = {tuple(pair) for pair in edges[:, kinds == 1].T.tolist()}
    assert labelled == {(new_york, london), (london, new_york)}
    assert [tuple(pair) for pair in edges[:, kinds == 3].T.tolist()] == [(N + new_york, N + tokyo)]
    assert not (kinds == 2).any()
    assert torch.equal(edges[:, kinds == 0], plain(market_panel, rows).to_edges()[0])


def test_the_default_takes_a_panel_of_its_own(panel: Panel):
    graph = GraphBuilder()(panel, [panel.row("2020-06-30")])
    assert graph.present.sum(-1)[graph.mask].eq(10).all()


def test_steps_that_cannot_be_saved_are_refused():
    with pytest.raises(ValueError, match="can't be saved"):
        GraphBuilder(sparsifier=lambda correlations: None)
    with pytest.raises(ValueError, match="can't be saved"):
        GraphBuilder(sparsifier=partial(k_nearest, None, 3))
    with pytest.raises(ValueError, match="unexpected keyword argument 'neighbours'"):
        GraphBuilder(sparsifier=partial(k_nearest, k=3, neighbours=3))
    with pytest.raises(ValueError, match="missing a required argument: 'k'"):
        GraphBuilder(sparsifier=k_nearest)


def test_a_function_of_another_package_must_be_allowed(market_panel):
    theirs = {"class_path": "os.getcwd", "init_args": {}}
    with pytest.raises(ValueError, match="outside the allowed packages"):
        GraphBuilder(sparsifier=theirs)(market_panel, [300])
