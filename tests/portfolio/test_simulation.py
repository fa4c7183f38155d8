import math

import pytest
import torch

from qtorch.portfolio import Costs, simulate

T, N = 12, 5
COSTS = Costs(proportional=0.001, impact=0.7, cash=0.0001, financing=0.0003)


def market(seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return {
        "targets": 0.5 * draw(2, T, N),
        "returns": 0.02 * draw(2, T, N),
        "mask": torch.rand(2, T, N, generator=g) > 0.2,
        "tradable": torch.rand(2, T, N, generator=g) > 0.3,
        "rebalance": torch.rand(T, generator=g) > 0.3,
        "start": 0.3 * draw(2, N),
        "volatility": 0.01 + 0.01 * draw(2, T, N).abs(),
        "volume": 10 + draw(2, T, N).abs(),
    }


def by_hand(m, row):
    """A book of positions in money, which starts with 1."""
    value = [m["start"][row, i].item() for i in range(N)]
    cash = 1 - sum(value)
    net, traded, spent = [], [], []
    for t in range(T):
        equity = cash + sum(value)
        turnover = cost = 0.0
        for i in range(N):
            if m["rebalance"][t] and m["tradable"][row, t, i]:
                trade = m["targets"][row, t, i].item() * equity - value[i]
                part = abs(trade) / equity
                sigma, adv = m["volatility"][row, t, i].item(), m["volume"][row, t, i].item()
                rate = COSTS.proportional + COSTS.impact * sigma * math.sqrt(part / adv)
                turnover, cost = turnover + part, cost + abs(trade) * rate
                value[i], cash = value[i] + trade, cash - trade
        cash -= cost
        spare = equity - cost - sum(abs(v) for v in value)
        cash += spare * (COSTS.cash if spare > 0 else COSTS.financing)
        value = [v * (1 + (m["returns"][row, t, i].item() if m["mask"][row, t, i] else 0)) for i, v in enumerate(value)]
        net.append((cash + sum(value)) / equity - 1)
        traded.append(turnover)
        spent.append(cost / equity)
    return net, traded, spent, [v / (cash + sum(value)) for v in value]


def test_simulation_is_the_book_of_positions():
    m = market()
    account = simulate(**m, costs=COSTS)
    got = account.returns, account.turnover, account.costs, account.final
    for row in range(2):
        for mine, theirs in zip(got, by_hand(m, row), strict=True):
            expected = torch.tensor(theirs, dtype=torch.float64)
            torch.testing.assert_close(mine[row], expected, rtol=0, atol=1e-12)


def test_gradients_pass_through_drift_and_costs():
    m = market(1)
    targets, start = m.pop("targets")[..., :4, :], m.pop("start")
    cut = {name: value[..., :4, :] if value.ndim == 3 else value[:4] for name, value in m.items()}

    def wealth(targets, start):
        account = simulate(targets=targets, start=start, costs=COSTS, **cut)
        return torch.log1p(account.returns).sum(-1)

    inputs = targets.clone().requires_grad_(), start.clone().requires_grad_()
    assert torch.autograd.gradcheck(wealth, inputs)


def test_not_trading_has_no_cost_and_a_finite_gradient():
    m = market(2)
    w = m["start"].unsqueeze(1).clone().requires_grad_()
    one = {"volatility": m["volatility"][:, :1], "volume": m["volume"][:, :1]}
    account = simulate(w, m["returns"][:, :1], costs=COSTS, start=m["start"], **one)
    assert (account.costs == 0).all()
    (gradient,) = torch.autograd.grad(account.returns.sum(), w)
    assert gradient.isfinite().all()


def test_masked_cells_take_no_part():
    m = market(3)
    m["tradable"] &= m["mask"]
    results = []
    for junk in (0.0, torch.nan):
        w = torch.where(m["tradable"], m["targets"], junk).requires_grad_()
        other = {name: torch.where(m["mask"], m[name], junk) for name in ("returns", "volatility", "volume")}
        net = simulate(**(m | other | {"targets": w}), costs=COSTS).returns
        results.append((net.detach(), *torch.autograd.grad(net.sum(), w)))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
    assert (results[0][1][~m["tradable"]] == 0).all()


def test_a_delisted_stock_is_sold_when_it_can_be():
    targets = torch.tensor([[0.5, 0.5], [0.5, 0.0], [0.5, 0.0]])
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    tradable = torch.tensor([[True, True], [True, False], [True, True]])
    weights = simulate(targets, torch.zeros(3, 2), mask, tradable=tradable).weights
    assert weights[:, 1].tolist() == [0.5, 0.5, 0.0]


def test_ruin_and_missing_data_are_refused():
    w, r = torch.full((1, 1), 2.0), torch.full((1, 1), -0.6)
    with pytest.raises(ValueError, match="session 0: .* lost all"):
        simulate(w, r)
    with pytest.raises(ValueError, match="no number"):
        simulate(w, torch.full((1, 1), torch.nan))
    with pytest.raises(ValueError, match="volatility"):
        simulate(w, r, costs=COSTS)
    with pytest.raises(ValueError, match="proportional"):
        Costs(proportional=-0.1)


def test_impact_refuses_assets_whose_volume_is_not_known():
    w, r, sigma = torch.full((3, 2), 0.5), torch.zeros(3, 2), torch.full((3, 2), 0.01)
    volume = torch.ones(3, 2)
    volume[1, 0] = 0.0
    with pytest.raises(ValueError, match="session 1, asset 0: its volume is 0"):
        simulate(w, r, costs=COSTS, volatility=sigma, volume=volume)
    sigma[2, 1] = torch.nan
    with pytest.raises(ValueError, match="session 2, asset 1: its volatility is nan"):
        simulate(w, r, costs=COSTS, volatility=sigma, volume=torch.ones(3, 2))
    sigma[2, 1] = 0.01
    tradable = volume > 0
    assert simulate(w, r, costs=COSTS, volatility=sigma, volume=volume, tradable=tradable).returns.isfinite().all()
