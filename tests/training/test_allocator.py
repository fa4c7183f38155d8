"""Allocators: masks, causality, constraints, accounts and training."""

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from qtorch.data import DataError, Panel, WindowSpec
from qtorch.models import AssetGraph, GraphCovariance, GraphScores, OverLearnedGraph, OverTree, Recurrent
from qtorch.nn import build, describe
from qtorch.nn.graph import GATv2, TreeLSTM
from qtorch.portfolio import Constraints, Costs, MinimumVariance, Projected
from qtorch.portfolio.graphs import LearnedGraph, dendrogram, ewma_correlation
from qtorch.training import Allocator, EpisodeSet, fit_allocator
from qtorch.training.allocation_objectives import (
    LeastShortfall,
    LeastTrackingError,
    LeastVariance,
    MeanVariance,
    MostDifferentialSharpe,
    MostSharpe,
    MostSortino,
    MostWealth,
)
from qtorch.training.allocator import Episodes
from tests.conftest import make_prices

SPEC = WindowSpec(8, (1,))


EXCHANGES = {"A": "XNYS", "B": "XNYS", "C": "XTKS", "D": "XLON", "E": "XNYS", "F": "XTKS"}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Closes of three exchanges; E is listed late and F delisted early."""
    closes = make_prices(EXCHANGES, "2018-01-02", "2019-08-30", 0)
    young, gone = closes.date < "2018-09-03", closes.date > "2019-03-01"
    return closes[~((closes.asset == "E") & young) & ~((closes.asset == "F") & gone)]


@pytest.fixture(scope="module")
def panel(frame) -> Panel:
    return Panel.from_frame(frame)


def states(*mixers: nn.Module) -> AssetGraph:
    """With the default's mixer, or others."""
    return AssetGraph(Recurrent(len(SPEC.features), width=4, dropout=0.0), estimates=2, width=8, mixers=mixers or None)


def mixed() -> AssetGraph:
    learned = OverLearnedGraph(LearnedGraph(8, k=3, width=4), GATv2(8, 8, weighted=True))
    return states(OverTree(TreeLSTM(8, 6)), learned)


NETWORKS = {
    "covariance": lambda: (GraphCovariance(states()), MinimumVariance(upper=0.5, inertia=1.0)),
    "scores": lambda: (GraphScores(states()), Projected(Constraints(upper=0.5, turnover=0.4))),
    "inverse": lambda: (GraphScores(mixed(), prior="inverse_volatility"), Projected(Constraints(upper=0.5))),
}


def allocator(name: str, **options: object) -> Allocator:
    torch.manual_seed(0)
    network, layer = NETWORKS[name]()
    settings = {"half_lives": (63.0, 126.0), "every": 5, "length": 4, "min_history": 70} | options
    return Allocator(network, layer, SPEC, **settings).eval()


def stirred(model: Allocator) -> Allocator:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def episodes(panel) -> Episodes:
    return EpisodeSet(allocator("covariance"), panel, batches=1, batch_size=2)[0]


@pytest.fixture(params=NETWORKS)
def model(request) -> Allocator:
    return stirred(allocator(request.param))


def test_weights_keep_to_the_constraints_and_the_universe(model, panel):
    decisions = model.source(panel).at(range(120, 400, 9))
    assert not decisions.market.universe.all(-1).all(), "nobody is missing"
    weights = model(decisions)
    assert (weights[~decisions.market.universe] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)), atol=1e-6, rtol=0.0)
    assert weights.max() <= 0.5 + 1e-6
    assert weights.min() >= -1e-6


def test_a_closed_market_keeps_its_weights(model, panel):
    decisions = model.source(panel).at(range(120, 400, 3))
    holdings = torch.where(decisions.market.universe, 1.0, 0.0)
    holdings = holdings / holdings.sum(-1, keepdim=True)
    closed = torch.logical_and(decisions.market.universe, ~decisions.tradable)
    assert closed.any()
    weights = model(decisions, holdings)
    assert torch.equal(weights[closed], holdings[closed])
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)), atol=1e-6, rtol=0.0)


def test_nothing_depends_on_the_future(model, panel, frame):
    date = panel.dates[330]
    changed = frame.copy()
    later = changed.date > date
    changed.loc[later, "close"] *= (
        1.5 + torch.rand(int(later.sum()), generator=torch.Generator().manual_seed(1)).numpy()
    )
    weights = model.allocate(panel, [panel.dates[300], date])
    pd.testing.assert_frame_equal(model.allocate(Panel.from_frame(changed), weights.index), weights)
    cut = Panel.from_frame(frame[frame.date <= date])
    pd.testing.assert_frame_equal(model.allocate(cut, weights.index), weights, check_exact=False, atol=1e-6)


def test_the_order_of_the_assets_does_not_matter(model, panel):
    date, order = panel.dates[350], ["D", "F", "A", "C", "B", "E"]
    weights = model.allocate(panel, date)
    pd.testing.assert_frame_equal(model.allocate(panel.select(order), date)[list(panel.assets)], weights, atol=1e-5)


def test_who_is_missing_sends_nothing_and_learns_nothing(model, panel):
    decisions = model.source(panel).at([130, 390])
    spoilt = decisions[torch.arange(2)]
    out = ~decisions.market.universe
    assert out.any()
    spoilt.market.inputs[out], spoilt.market.volatility[out.unsqueeze(1).expand_as(spoilt.market.volatility)] = (
        torch.nan,
        1.0,
    )
    assert torch.equal(model(spoilt), model(decisions))
    inputs = spoilt.market.inputs.requires_grad_()
    model(spoilt).square().sum().backward()
    assert (inputs.grad[out] == 0).all()
    assert inputs.grad[~out].any()


def test_groups_keep_to_their_caps(panel):
    groups = {"exchange": {asset: EXCHANGES[asset] for asset in EXCHANGES} | {"Z": "XOSL", "F": None}}
    torch.manual_seed(0)
    layer = Projected(Constraints(upper=0.6, caps={"exchange": 0.5}))
    model = Allocator(
        GraphScores(states()), layer, SPEC, half_lives=(63.0, 126.0), every=5, length=4, min_history=70, groups=groups
    )
    decisions = stirred(model.eval()).source(panel).at(range(250, 400, 9))
    weights = model(decisions)
    in_york = torch.tensor([EXCHANGES[asset] == "XNYS" for asset in panel.assets])
    held = weights[:, in_york].sum(-1)
    assert held.max() < 0.5 + 1e-6
    assert ((held - 0.5).abs() < 1e-6).sum() >= 5, "the cap is not at work"
    assert model.run(EpisodeSet(model, panel, batches=1, batch_size=2, min_assets=5)[0]).returns.isfinite().all()
    with pytest.raises(DataError, match="no label for A"):
        Allocator(GraphScores(states()), layer, SPEC, groups={"exchange": {"B": "XNYS"}}).source(panel)


OBJECTIVES = [
    LeastVariance(0.1),
    MostSharpe(0.1),
    LeastShortfall(0.9),
    MostWealth(0.5),
    MostSortino(turnover=0.1),
    MostDifferentialSharpe(),
    MeanVariance(5.0),
    LeastTrackingError(0.01),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_every_objective_teaches_every_parameter(episodes, objective):
    model = stirred(allocator("covariance", objective=objective, costs=Costs(proportional=1e-3))).train()
    loss = model.training_step(episodes, 0)
    loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    # A key's bias moves all scores of a row alike, and attention has no gradient in it.
    assert [name for name in without if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_a_few_steps_improve_every_objective(episodes, objective):
    model = stirred(allocator("covariance", objective=objective))
    start = model.loss(episodes).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model.loss(episodes).backward()
        optimizer.step()
    with torch.no_grad():
        assert model.loss(episodes).item() < start


def test_objectives_are_their_formulas(episodes):
    model = stirred(allocator("covariance"))
    with torch.no_grad():
        account, equal = model.run(episodes), model.equal(episodes)
    r, year = account.returns.double(), 252
    short = r.clamp(max=0).square().mean(-1).sqrt()
    assert MostSortino()(account).item() == pytest.approx(-(year**0.5 * r.mean(-1) / short).mean().item(), rel=1e-4)
    utility = year * (r.mean(-1) - 2.5 * r.var(-1))
    assert MeanVariance(5.0)(account).item() == pytest.approx(-utility.mean().item(), rel=1e-4)
    gap = (r - equal.returns).std(-1)
    assert LeastTrackingError()(account, equal).item() == pytest.approx(100 * (year**0.5 * gap).mean().item(), rel=1e-4)
    assert LeastTrackingError()(equal, equal).item() == pytest.approx(0.0, abs=1e-4)
    first = equal.weights[:, 0]
    torch.testing.assert_close(first, (first > 0) / (first > 0).sum(-1, keepdim=True))
    assert (equal.costs == 0).all()


def test_the_account_is_that_of_a_plain_loop(panel):
    model = allocator("scores")
    episodes = EpisodeSet(model, panel, batches=1, batch_size=1, seed=3)[0]
    with torch.no_grad():
        account = model.run(episodes)
    held: Tensor | None = None
    step, cost = 0, model.costs.proportional
    for r in range(model.length):
        at = episodes.decisions[torch.tensor([r])]
        with torch.no_grad():
            wanted = model(at, held)
        start = wanted if held is None else held
        weights = torch.where(at.tradable, wanted, start) if held is not None else wanted
        paid = cost * (weights - start).abs().sum().item()
        for s in range(model.every):
            r_t = episodes.returns[0, r, s]
            earned = (weights * r_t).sum().item() - (paid if s == 0 else 0.0)
            assert account.returns[0, step].item() == pytest.approx(earned, abs=1e-7)
            weights, step = weights * (1 + r_t) / (1 + earned), step + 1
        held = weights


def test_training_lowers_the_variance_and_can_be_repeated(panel):
    def fitted() -> tuple[Allocator, float]:
        model = allocator("covariance", objective=LeastVariance())
        fit_allocator(model, panel, until="2019-05-31", steps=6, batch_size=2, seed=1)
        return model, model.objective(
            model.run(EpisodeSet(model, panel, "2019-05-31", batches=1, batch_size=4)[0])
        ).item()

    before = allocator("covariance", objective=LeastVariance())
    start = before.objective(before.run(EpisodeSet(before, panel, "2019-05-31", batches=1, batch_size=4)[0])).item()
    (one, loss), (two, _) = fitted(), fitted()
    assert loss < start
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not one.training


def test_episodes_never_look_past_their_last_date(panel):
    model = allocator("covariance")
    until = "2019-03-29"
    episodes = EpisodeSet(model, panel, until, batches=3, batch_size=4)
    last = max(int(episodes[k].decisions.rows.max()) for k in range(3))
    assert last + model.every < panel.dates.searchsorted(pd.Timestamp(until), side="right")


def test_episodes_begin_when_there_are_assets_enough(panel):
    model = allocator("covariance")
    for least in (2, 5):
        episodes = EpisodeSet(model, panel, since=panel.dates[40], batches=4, batch_size=4, min_assets=least)
        assert min(int(episodes[k].decisions.market.universe.sum(-1).min()) for k in range(4)) >= least
    with pytest.raises(DataError, match="no episode has 7 assets"):
        EpisodeSet(model, panel, min_assets=7)


def test_networks_and_layers_are_plain_values():
    for name in NETWORKS:
        model = stirred(allocator(name))
        again = build(describe(model.network))
        again.load_state_dict(model.network.state_dict())
        assert isinstance(build(describe(model.allocation)), nn.Module)
        assert describe(again) == describe(model.network)


def test_it_says_what_is_wrong(panel):
    model = allocator("covariance")
    with pytest.raises(ValueError, match="one at a time"):
        model.allocate(panel, panel.dates[[300, 310]], {"A": 1.0})
    with pytest.raises(DataError, match="'Z'"):
        model.allocate(panel, panel.dates[300], {"Z": 1.0})
    with pytest.raises(DataError, match="shorter episodes"):
        EpisodeSet(allocator("covariance", length=100), panel)
    with pytest.raises(ValueError, match="prior"):
        GraphScores(states(), prior="best")


def account(model: Allocator, panel: Panel, first: int) -> tuple[Tensor, Tensor]:
    """Sums of weights, and the weights of F, of an episode that begins at a row."""
    source = model.source(panel)
    decisions = source.at([first + k * model.every for k in range(model.length)])
    returns, there = source.outcomes(decisions.rows, model.every)
    with torch.no_grad():
        weights = model.run(Episodes(decisions, returns[None], there[None])).weights[0]
    return weights.sum(-1), weights[:, panel.assets.index("F")]


def test_what_is_delisted_or_silent_leaves_no_leverage(frame):
    for delisted in (None, {"F": "2019-03-01"}):
        panel = Panel.from_frame(frame, delisted=delisted)
        model = allocator("inverse", every=5, length=8, costs=Costs())
        total, of_gone = account(model, panel, panel.row("2019-03-01") - 10)
        assert of_gone[0] > 0.05
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0.0)
        assert (of_gone[-1] == 0) == (delisted is not None), "sold at the last price where that is known to be it"


def test_borrowed_costs_stop_no_decision_while_markets_are_closed(model, panel):
    decisions = model.source(panel).at(range(120, 400))
    closed = torch.logical_and(decisions.market.universe, ~decisions.tradable)
    partly = decisions[torch.logical_and(closed.any(-1), decisions.tradable.any(-1)).nonzero().squeeze(1)]
    closed = torch.logical_and(partly.market.universe, ~partly.tradable)
    holdings = 1.0005 * closed / closed.sum(-1, keepdim=True)
    torch.testing.assert_close(model(partly, holdings), holdings, atol=1e-6, rtol=0.0)


def test_trees_are_of_the_slowest_correlations_of_the_universe(panel):
    source = allocator("inverse").source(panel)
    rows = [390, 130, 300]
    decisions = source.at(rows)
    for k, row in enumerate(rows):
        universe = decisions.market.universe[k]
        alone = panel.select([asset for asset, there in zip(panel.assets, universe.tolist(), strict=True) if there])
        expected = dendrogram(ewma_correlation(alone, [row], half_life=126.0)).merges[0]
        n, N = int(universe.sum()), len(panel.assets)
        place = torch.cat([universe.nonzero().squeeze(1), torch.arange(N, 2 * N - 1)])
        assert torch.equal(decisions.market.tree.merges[k, : n - 1], place[expected])
    assert allocator("scores").source(panel).at([300]).market.tree is None


def test_an_asset_whose_price_never_moves_is_left_out(frame):
    still = frame.assign(close=frame["close"].where(frame["asset"] != "B", 10.0))
    weights = stirred(allocator("inverse")).allocate(Panel.from_frame(still), "2019-06-28").iloc[0]
    assert weights["B"] == 0
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)


def test_errors_name_dates_and_assets(panel):
    model = allocator("scores")
    with pytest.raises(DataError, match=r"2018-01-10, 2018-01-11: the universe is empty.*min_history=70"):
        model.allocate(panel, ["2018-01-10", "2018-12-28", "2018-01-11"])
    tight = allocator("scores")
    tight.allocation = Projected(Constraints(upper=0.18))
    with pytest.raises(ValueError, match=r"^2018-08-01: .*add up to at most 0\.9"):
        tight.allocate(panel, ["2019-01-15", "2018-08-01"])
    with torch.no_grad():
        model.network.score.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="^2018-12-28, A: the score is nan"):
        model.allocate(panel, "2018-12-28")
    decisions = tight.source(panel).at([160])
    with torch.no_grad(), pytest.raises(ValueError, match=f"^{panel.dates[160]:%Y-%m-%d}: "):
        tight(decisions)


@pytest.mark.parametrize(
    ("half_lives", "message"),
    [
        ((), r"half_lives=\[\]: give at least one"),
        ((63.0, -1.0), "give 21 rows or more"),
        ((63.0, float("inf")), "give 21 rows or more"),
        ((63.0,), "estimates=2: AssetGraph takes one estimate for each of the 1 half_lives"),
    ],
)
def test_half_lives_that_no_estimate_has_are_refused_when_the_model_is_made(half_lives, message):
    with pytest.raises(ValueError, match=message):
        allocator("covariance", half_lives=half_lives)
