import pandas as pd
import pytest
import torch

from qtorch.nn.graph import Graph
from qtorch.portfolio.graphs import Relation, combined, related, same_label

ASSETS = ("A", "B", "C", "D")
DATES = pd.DatetimeIndex(["2020-01-31", "2020-02-28", "2020-03-31"])
EVERY = torch.ones(3, 4, dtype=torch.bool)


def edges(graph: Graph) -> list[set[tuple[str, str]]]:
    """From and to, for each date."""
    there, _ = graph.to_dense()
    return [{(ASSETS[j], ASSETS[i]) for i, j in each.nonzero().tolist()} for each in there]


def test_relations_hold_from_and_until_their_dates():
    given = [
        Relation("A", "B"),
        Relation("C", "B", kind=3, weight=0.5, since="2020-02-28", until="2020-02-28", mutual=False),
        Relation("D", "C", kind=1, until="2020-02-27"),
        Relation("D", "Z"),
    ]
    graph = related(given, ASSETS, DATES, EVERY)
    both = {("A", "B"), ("B", "A")}
    assert edges(graph) == [both | {("D", "C"), ("C", "D")}, both | {("C", "B")}, both]
    place = graph.neighbours[1, 1] == 2
    assert graph.kinds[1, 1][place].tolist() == [3]
    assert graph.weights[1, 1][place].tolist() == [0.5]


def test_no_relation_is_no_edge():
    assert edges(related([], ASSETS, DATES, EVERY)) == [set(), set(), set()]
    assert edges(related([Relation("A", "B", since="2021-01-01")], ASSETS, DATES, EVERY)) == [set(), set(), set()]


def test_a_dead_asset_has_no_relation():
    mask = EVERY.clone()
    mask[0, 1] = False
    assert edges(related([Relation("A", "B")], ASSETS, DATES, mask))[0] == set()
    assert edges(same_label({"A": "x", "B": "x"}, ASSETS, DATES, mask))[0] == set()


def test_assets_of_a_label_hear_from_each_other():
    graph = same_label({"A": "x", "B": "y", "C": "x", "Z": "x"}, ASSETS, DATES, EVERY)
    assert edges(graph) == [{("A", "C"), ("C", "A")}] * 3


def test_labels_change_with_dates():
    labels = pd.DataFrame(
        [
            ("A", "x", None, "2020-02-15"),
            ("A", "y", "2020-02-16", None),
            ("B", "x", None, None),
            ("C", "y", None, None),
        ],
        columns=["asset", "label", "since", "until"],
    )
    graph = same_label(labels, ASSETS, DATES, EVERY)
    assert edges(graph) == [{("A", "B"), ("B", "A")}, {("A", "C"), ("C", "A")}, {("A", "C"), ("C", "A")}]
    labels.loc[0, "until"] = "2020-02-28"
    with pytest.raises(ValueError, match="A has 2 labels on 2020-02-28"):
        same_label(labels, ASSETS, DATES, EVERY)


def test_graphs_combined_keep_their_edges_apart():
    one, other = (
        same_label({"A": "x", "C": "x", "D": "x"}, ASSETS, DATES, EVERY),
        related([Relation("A", "C", kind=1, weight=0.5), Relation("A", "B")], ASSETS, DATES, EVERY),
    )
    graph = combined(one, other, kinds=[1, 2])
    found, weights, kinds = graph.to_edges()
    listed = {(int(s), int(t), int(k)): float(w) for s, t, k, w in zip(*found, kinds, weights, strict=True) if t < 4}
    assert listed == {
        (0, 2, 0): 1.0, (2, 0, 0): 1.0, (0, 3, 0): 1.0, (3, 0, 0): 1.0, (2, 3, 0): 1.0, (3, 2, 0): 1.0,
        (0, 2, 2): 0.5, (2, 0, 2): 0.5, (0, 1, 1): 1.0, (1, 0, 1): 1.0,
    }  # fmt: skip


def test_what_cannot_be_combined_is_refused():
    graph = related([Relation("A", "C", kind=1)], ASSETS, DATES, EVERY)
    with pytest.raises(ValueError, match="kind 1, but 1 kinds"):
        combined(graph)
    with pytest.raises(ValueError, match="2 graphs how many kinds"):
        combined(graph, graph, kinds=[2])
    mask = EVERY.clone()
    mask[0, 0] = False
    with pytest.raises(ValueError, match="another mask"):
        combined(graph, related([], ASSETS, DATES, mask), kinds=[2, 1])
    with pytest.raises(ValueError, match="at least one"):
        combined()
    with pytest.raises(ValueError, match=r"mask must be \[3, 4\]"):
        related([], ASSETS, DATES, EVERY[:2])
