"""The risk endpoint against the nightly job's own numbers, and refusals of what is no portfolio, date or horizon."""

import dataclasses
import datetime
import json
import os
from collections import OrderedDict
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch import Forecaster, heads, models
from qtorch.data import DataError, WindowSource, WindowSpec
from qtorch.deploy import save
from qtorch.deploy.server import kept_forecasts as module
from qtorch.deploy.server.protocol import Limits, RequestError
from qtorch.deploy.server.repository import Repository
from qtorch.deploy.server.risk import RiskService
from qtorch.deploy.server.risk_request import RiskRequest, parse_risk
from qtorch.deploy.server.watched_panel import WatchedPanel
from qtorch.nightly import gates
from qtorch.nightly.config import NightlyConfig, NightlyData, RiskConfig
from qtorch.nightly.forecast_history import History
from qtorch.nightly.tables import PORTFOLIO, portfolio_table
from qtorch.risk import portfolio_risk
from tests.conftest import make_model, make_prices

SPEC = WindowSpec(context=8, horizons=(1, 5))
RISK = RiskConfig(dependence="copula", backtest_sessions=2, scenario_sessions=100)
BOOK = {"BBB": 1e6, "AAA": -5e5, "EEE": 2e5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    prices = make_prices({"AAA": "XNYS", "BBB": "XNYS", "EEE": "XECB", "YYY": "XNYS"}, "2018-06-01", "2019-03-29")
    young = (prices["asset"] == "YYY") & (prices["date"] < "2019-03-01")
    prices[~young].to_parquet(root / "prices.parquet")
    torch.manual_seed(0)
    save(make_model(SPEC), root / "models" / "spx" / "1")
    save(joint_model(), root / "models" / "joint" / "1")
    return root


def joint_model() -> Forecaster:
    """One with a copula of its own, which need not be fitted."""
    F = len(SPEC.features)
    marginals, copula = heads.StudentT(8, SPEC.horizons), heads.CopulaHead(8, 2)
    for layer in (marginals.project, copula.project):
        torch.nn.init.normal_(layer.weight, std=0.3)
    encoder = models.PanelTransformer(F, width=8, depth=1, heads=2)
    return Forecaster(encoder, heads.JointHead(marginals, copula), SPEC).eval()


@pytest.fixture(scope="module")
def data(folder):
    return NightlyData(str(folder / "prices.parquet"))


@pytest.fixture(scope="module")
def service(folder, data):
    repository = Repository(folder / "models")
    repository.refresh()
    return RiskService(data, repository, RISK)


def asked(**changes: Any) -> RiskRequest:
    return dataclasses.replace(RiskRequest("joint", None, BOOK, levels=(0.8, 0.9)), **changes)


@pytest.fixture(scope="module")
def history(data, service):
    """What the nightly job would know."""
    return history_of(data, service, "joint")


def history_of(data, service, name: str) -> History:
    panel = gates.read_panel(data, None)
    model = service.repository.get(name).model
    config = NightlyConfig(data, risk=dataclasses.replace(RISK, levels=[0.9, 0.99]))
    return History.of(config, WindowSource(panel, SPEC), model)


@pytest.mark.parametrize(
    ("name", "horizon"), [("joint", 5), *(pytest.param("spx", h, marks=pytest.mark.slow) for h in (1, 5))]
)
def test_the_risk_is_that_of_the_nightly_job(service, data, history, name, horizon):
    history = history if name == "joint" else history_of(data, service, name)
    answer = service.answer(asked(model=name, horizon=horizon, levels=(0.9, 0.99)))
    assert answer["as_of"] == "2019-03-29"
    assert (answer["model"], answer["version"], answer["horizon"]) == (name, "1", horizon)
    exposures = pd.Series(BOOK)
    states = gates.asset_states(history.panel, WindowSource(history.panel, SPEC), data, exposures)
    table = portfolio_table(history, exposures, "market_value", states).set_index(["horizon", "level", "asset"])
    for level in answer["levels"]:
        whole = table.loc[(horizon, level["level"], PORTFOLIO)]
        for name in ("value_at_risk", "expected_shortfall", "value_at_risk_error", "expected_shortfall_error"):
            assert level[name] == whole[name]
        assert level["value_at_risk_error"] > 0
        for part in level["assets"]:
            own = table.loc[(horizon, level["level"], part["asset"])]
            assert part["exposure"] == own["exposure"] == BOOK[part["asset"]]
            assert part["stand_alone_value_at_risk"] == own["value_at_risk"]
            assert part["component_expected_shortfall"] == own["component_expected_shortfall"]


def test_totals_are_those_of_the_scenarios_and_components_sum(service, history):
    answer = service.answer(asked(scenarios=256, seed=3, horizon=5))
    assert answer["scenarios"] == {"dependence": "copula", "randomisations": 8, "count": 256, "seed": 3}
    column = [history.panel.assets.index(asset) for asset in BOOK]
    scenarios = history.scenarios(1, 256, 3)[..., column].flatten(0, 1)
    exposures = torch.tensor(list(BOOK.values()), dtype=torch.float64)
    for level in answer["levels"]:
        risk = portfolio_risk(scenarios, exposures, level["level"])
        for name in ("value_at_risk", "expected_shortfall"):
            total = getattr(risk, name).item()
            assert level[name] == pytest.approx(total, rel=1e-12)
            parts = level["assets"]
            assert sum(part[f"component_{name}"] for part in parts) == pytest.approx(total, rel=1e-9)
            for part in parts:
                assert part[f"component_{name}"] == pytest.approx(part["exposure"] * part[f"marginal_{name}"], rel=1e-9)


def test_one_position_s_risk_is_that_of_its_law(service):
    """Scenarios enough for each level that is answered: the estimates keep to the closed form within their errors."""
    answer = service.answer(asked(positions={"BBB": 1e6}, levels=(0.99, 0.997)))
    assert answer["scenarios"]["count"] == 4096
    for level in answer["levels"]:
        (position,) = level["assets"]
        for name in ("value_at_risk", "expected_shortfall"):
            off = abs(level[name] - position[f"stand_alone_{name}"])
            assert off < 4 * level[f"{name}_error"]
            assert level[f"{name}_error"] < 0.03 * level[name]


@pytest.mark.parametrize(
    ("levels", "scenarios", "words"),
    [
        ((0.9, 0.99), 512, "of 512 scenarios 5.12 are beyond 0.99, and 10 are needed.*up to 65536"),
        ((0.99999,), None, "of 65536 scenarios 0.655 are beyond 0.99999"),
        ((0.00001,), None, "of 65536 scenarios 0.655 are beyond 1e-05"),
        ((5e-324,), None, "are beyond 5e-324"),
    ],
)
def test_a_level_that_scenarios_do_not_tell_is_refused(service, levels, scenarios, words):
    with pytest.raises(RequestError, match=words) as refused:
        service.answer(asked(levels=levels, scenarios=scenarios))
    assert refused.value.status == 422


def test_scenarios_that_are_kept_are_bounded_in_bytes(service, data, monkeypatch):
    service.answer(asked(scenarios=128))
    known = next(iter(service._kept._known.values()))
    older, newer = (dataclasses.replace(known, scenarios=OrderedDict()) for _ in range(2))
    own = RiskService(data, service.repository, RISK)._kept
    own._known.update(older=older, newer=newer)
    one, made = torch.zeros(8, 128, 4, dtype=torch.float64), []
    monkeypatch.setattr(History, "scenarios", lambda self, h, count, seed: made.append(seed) or one)
    monkeypatch.setattr(module, "_KEPT_BYTES", 3 * one.nbytes)
    for seed, known in enumerate([older, newer, older, newer]):
        own.scenarios(known, 0, 128, seed)
    assert [list(known.scenarios) for known in (older, newer)] == [[(0, 128, 2)], [(0, 128, 1), (0, 128, 3)]]
    own.scenarios(newer, 0, 128, 1)  # kept
    own.scenarios(older, 0, 128, 0)  # forgotten
    assert made == [0, 1, 2, 3, 0]


def test_a_position_of_nothing_has_no_negative_zero(service):
    answer = service.answer(asked(positions={"AAA": 1.0, "BBB": -0.0, "EEE": 0.0}, scenarios=128))
    assert "-0.0" not in json.dumps(answer)


def test_an_earlier_date_knows_nothing_later(service, folder, data, tmp_path):
    later = service.answer(asked(as_of=datetime.date(2019, 3, 15), scenarios=128))
    frame = pd.read_parquet(data.path)
    frame[frame["date"] <= "2019-03-15"].to_parquet(tmp_path / "prices.parquet")
    cut = RiskService(NightlyData(str(tmp_path / "prices.parquet")), service.repository, RISK)
    assert cut.answer(asked(scenarios=128)) == later


def test_a_second_question_makes_nothing_anew(service, monkeypatch):
    first = service.answer(asked(scenarios=128))
    monkeypatch.setattr(module, "History", None)
    monkeypatch.setattr(History, "scenarios", None)
    assert service.answer(asked(scenarios=128)) == first
    double = service.answer(asked(scenarios=128, positions={asset: 2 * value for asset, value in BOOK.items()}))
    assert double["levels"][0]["value_at_risk"] == pytest.approx(2 * first["levels"][0]["value_at_risk"])


def test_an_asset_without_a_forecast_is_never_dropped_in_silence(service):
    book = BOOK | {"YYY": 1e5}
    with pytest.raises(RequestError, match="no forecast of YYY .too little history: .*without_forecast") as refused:
        service.answer(asked(positions=book))
    assert refused.value.status == 422
    answer = service.answer(asked(scenarios=128, positions=book, without_forecast="report"))
    (missing,) = answer["no_forecast"]
    assert missing["asset"] == "YYY"
    assert "too little history" in missing["reason"]
    level = answer["levels"][0]
    assert level["value_at_risk"] == service.answer(asked(scenarios=128))["levels"][0]["value_at_risk"]
    left_out = level["assets"][-1]
    assert (left_out["asset"], left_out["component_value_at_risk"]) == ("YYY", 0)
    assert left_out["stand_alone_value_at_risk"] is None
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"positions": {"ZZZ": 1.0}}, 422, "not in the prices: ZZZ. There are AAA"),
        ({"horizon": 10}, 422, "no horizon of 10. It has 1, 5"),
        (
            {"as_of": datetime.date(2019, 3, 30)},
            422,
            "2019-03-30: the prices have no such row.*before is 2019-03-29",
        ),
        ({"as_of": datetime.date(1, 1, 1)}, 422, "They begin on 2018-06-01"),
        ({"as_of": datetime.date(2018, 6, 5)}, 422, "cannot forecast 2018-06-05"),
        ({"model": "vix"}, 404, "no model 'vix'"),
        ({"version": "2"}, 404, "no version 2"),
        ({"scenarios": 1 << 16}, 413, "over the server's limit"),
    ],
)
def test_what_cannot_be_answered_is_refused(service, monkeypatch, changes, status, words):
    monkeypatch.setattr(service.repository, "limits", Limits(max_elements=100_000))
    with pytest.raises(RequestError, match=words) as refused:
        service.answer(asked(**{"scenarios": 128} | changes))
    assert refused.value.status == status


def test_past_sessions_for_scenarios(service, data):
    past = RiskService(data, service.repository, dataclasses.replace(RISK, dependence="past"))
    answer = past.answer(asked(levels=(0.8,)))
    assert answer["scenarios"]["dependence"] == "past"
    assert answer["scenarios"]["randomisations"] == 1
    assert all(level["value_at_risk_error"] > 0 for level in answer["levels"])
    with pytest.raises(RequestError, match="takes past sessions"):
        past.answer(asked(scenarios=128))
    with pytest.raises(RequestError, match="are beyond 0.99, and 10 are needed"):
        past.answer(asked(levels=(0.99,)))


def test_prices_are_read_again_when_they_change(service, data, tmp_path):
    path = tmp_path / "prices.parquet"
    frame = pd.read_parquet(data.path)
    frame[frame["date"] <= "2019-03-28"].to_parquet(path)
    prices = WatchedPanel(NightlyData(str(path)))
    stamp, panel = prices.current()
    assert f"{panel.dates[-1]:%Y-%m-%d}" == "2019-03-28"
    again = prices.current()
    assert again[0] == stamp
    assert again[1] is panel
    path.write_bytes(b"no Parquet")
    broken = RiskService(NightlyData(str(path)), service.repository, RISK)
    for _ in range(2):
        with pytest.raises(DataError, match="not a readable Parquet file"):
            prices.current()
    with pytest.raises(RequestError, match="prices cannot be used") as refused:
        broken.answer(asked())
    assert refused.value.status == 503
    frame.to_parquet(tmp_path / "new.parquet")
    os.replace(tmp_path / "new.parquet", path)
    assert f"{prices.current()[1].dates[-1]:%Y-%m-%d}" == "2019-03-29"
    path.unlink()
    with pytest.raises(DataError, match="not readable"):
        prices.current()


def parsed(body: Any, model: str = "spx", version: str | None = None) -> RiskRequest:
    return parse_risk(json.dumps(body).encode(), {}, model, version, Limits())


def test_both_forms_of_positions():
    whole = parsed(
        {
            "positions": [{"asset": "AAA", "value": 1}, {"asset": "BBB", "value": -0.5}],
            "model": "spx",
            "as_of": "2019-03-29",
            "horizon": 5,
            "levels": [0.99],
            "scenarios": 512,
            "seed": 7,
            "unit": "weight",
            "without_forecast": "report",
        }
    )
    expected = RiskRequest(
        "spx",
        None,
        {"AAA": 1.0, "BBB": -0.5},
        datetime.date(2019, 3, 29),
        5,
        (0.99,),
        512,
        7,
        "weight",
        "report",
    )
    assert whole == expected
    assert parsed({"positions": {"AAA": 1, "BBB": -0.5}}) == RiskRequest("spx", None, {"AAA": 1.0, "BBB": -0.5})


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"positions": None}, 400, "positions is None"),
        ({"positions": {}}, 400, "positions is empty"),
        ({"positions": []}, 400, "positions is empty"),
        ({"positions": "AAA"}, 400, "positions is 'AAA'"),
        ({"positions": {"AAA": None}}, 400, "'AAA' is None"),
        ({"positions": {"AAA": "1"}}, 400, "'AAA' is '1'"),
        ({"positions": {"AAA": True}}, 400, "'AAA' is True"),
        ({"positions": {"AAA": np.nan}}, 400, "'AAA' is nan"),
        ({"positions": {"AAA": np.inf}}, 400, "'AAA' is inf"),
        ({"positions": {"AAA": 10**400}}, 400, "a whole number of 1329 bits"),
        ({"positions": ["AAA"]}, 400, r"positions\[0\] is 'AAA'"),
        ({"positions": [{"asset": "AAA"}]}, 400, r"positions\[0\] is"),
        ({"positions": [{"asset": 3, "value": 1}]}, 400, r"positions\[0\] is"),
        ({"positions": [{"asset": "AAA", "value": 1}] * 2}, 400, "'AAA' is there twice"),
        ({"horizon": 0}, 400, "horizon is 0"),
        ({"horizon": 1.0}, 400, "horizon is 1.0"),
        ({"horizon": True}, 400, "horizon is True"),
        ({"levels": 2.0}, 422, "levels holds 2.0"),
        ({"levels": []}, 422, "between 1 and 32"),
        ({"scenarios": 1000}, 400, "Give a power of 2"),
        ({"scenarios": 64}, 400, "from 128"),
        ({"scenarios": 2**20}, 400, "from 128 to 65536"),
        ({"seed": -1}, 400, "seed is -1"),
        ({"unit": "euro"}, 400, "Give value or weight"),
        ({"unit": ["value"]}, 400, "Give value or weight"),
        ({"without_forecast": True}, 400, "Give refuse or report"),
        ({"as_of": 20190329}, 400, "as_of is 20190329"),
        *(
            ({"as_of": text}, 400, "as_of is .*Give a date such as 2024-05-03")
            for text in (
                "01/06/2022",
                "22-06-01",
                "today",
                "2022",
                "20220601",
                "2022-W22-3",
                "2022-6-1",
                "2022-02-30",
                "2022-06-01T00:00",
                "2022-06-01 ",
                "٢٠٢٢-٠٦-٠١",
                "",
            )
        ),
        ({"model": "vix"}, 400, "the path names 'spx'"),
        ({"version": "3"}, 400, "the path names None"),
        ({"levls": [0.9]}, 400, "'levls' is not known"),
    ],
)
def test_a_malformed_risk_request_is_refused(change, status, words):
    with pytest.raises(RequestError, match=words) as refused:
        parsed({"positions": {"AAA": 1.0}} | change)
    assert refused.value.status == status
