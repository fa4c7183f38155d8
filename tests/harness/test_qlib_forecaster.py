"""Forecasters as models of qlib's, through its recorder and its strategies."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from qtorch.backtest.adapters.scores import gain_probability, less_risk
from qtorch.data import DataError, Panel, WindowSpec
from qtorch.heads import Normal
from qtorch.models import Recurrent, RiskMetrics
from qtorch.training import Forecaster
from tests.conftest import make_prices

pytestmark = pytest.mark.harness

SEGMENTS = {
    "train": ("2018-01-02", "2018-10-31"),
    "valid": ("2018-11-01", "2019-01-31"),
    "test": ("2019-02-01", "2019-03-29"),
}
SPEC = WindowSpec(16, (1, 5))


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory) -> None:
    """Without data, and with an MLflow store in a file of sqlite's."""
    import qlib

    folder = tmp_path_factory.mktemp("qlib")
    manager = {
        "class": "MLflowExpManager",
        "module_path": "qlib.workflow.expm",
        "kwargs": {"uri": f"sqlite:///{folder / 'runs.db'}", "default_exp_name": "qtorch"},
    }
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)  # where MLflow puts its artefacts
        qlib.init(provider_uri=str(folder), region="us", exp_manager=manager)
        yield


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    frame = make_prices(dict.fromkeys("ABCDE", "XNYS"), "2018-01-02", "2019-03-29")
    return (
        frame.rename(columns={"date": "datetime", "asset": "instrument"})
        .set_index(["datetime", "instrument"])
        .sort_index()
    )


def dataset(closes: pd.DataFrame, handler: dict | None = None, **segments):
    """A DatasetH of frames in memory, whose processors change its features out of recognition."""
    from qlib.data.dataset import DatasetH
    from qlib.data.dataset.handler import DataHandlerLP
    from qlib.data.dataset.loader import StaticDataLoader

    wide = closes["close"].unstack()
    label = (wide.shift(-1) / wide - 1).stack(future_stack=True)
    features = pd.DataFrame({("feature", "$close"): closes["close"], ("label", "LABEL0"): label}).sort_index()
    made = DataHandlerLP(
        data_loader=StaticDataLoader(features),
        infer_processors=[{"class": "CSZScoreNorm", "kwargs": {"fields_group": "feature"}}],
        **(handler or {}),
    )
    return DatasetH(made, SEGMENTS | segments)


def trained(**options):
    from qtorch.backtest.adapters import QlibForecaster

    torch.manual_seed(0)
    model = Forecaster(Recurrent(len(SPEC.features), width=8), Normal(8, SPEC.horizons), SPEC)
    training = {"max_epochs": 2, "seed": 1, "accelerator": "cpu"}
    return QlibForecaster(model, data={"batches_per_epoch": 5}, training=training, **options)


def weights(model) -> torch.Tensor:
    return torch.cat([each.flatten() for each in model.fitted.network.state_dict().values()])


def test_scores_are_the_forecasts(closes):
    from qtorch.backtest.adapters import QlibForecaster

    panel = Panel.from_frame(closes.reset_index().rename(columns={"datetime": "date", "instrument": "asset"}))
    expected = RiskMetrics(SPEC).forecast(panel, panel.dates[panel.dates >= "2019-02-01"])
    data = dataset(closes)
    for score, measure in ((less_risk, -expected.value_at_risk(0.99)), (gain_probability, None)):
        got = QlibForecaster(RiskMetrics(SPEC), score, horizon=5).fit(data).predict(data)
        assert got.index.names == ["datetime", "instrument"]
        values = got.unstack().loc[expected.dates, list(expected.assets)].to_numpy()
        wanted = np.full(values.shape, 0.5) if measure is None else measure[:, 1].numpy()
        np.testing.assert_allclose(values, wanted, rtol=1e-6)


def test_the_default_score_is_the_trained_models_mean(closes):
    data, model = dataset(closes), trained(horizon=5)
    got = model.fit(data).predict(data).unstack()
    panel = Panel.from_frame(closes.reset_index().rename(columns={"datetime": "date", "instrument": "asset"}))
    expected = model.fitted.forecast(panel, panel.dates[panel.dates >= "2019-02-01"]).marginals.mean[:, 1]
    assert expected.abs().min() > 0
    np.testing.assert_allclose(got[list(panel.assets)], expected.numpy(), rtol=1e-6)


def test_training_sees_nothing_of_the_test(closes):
    first, late = trained().fit(dataset(closes)), closes.copy()
    late.loc["2019-02-01":, "close"] *= 3
    assert torch.equal(weights(trained().fit(dataset(late))), weights(first))
    early = closes.copy()
    early.loc["2018-10-31":"2018-10-31", "close"] *= 1.1
    assert not torch.equal(weights(trained().fit(dataset(early))), weights(first))
    assert not torch.equal(weights(first), weights_of(first.forecaster))


def weights_of(forecaster: Forecaster) -> torch.Tensor:
    return torch.cat([each.flatten() for each in forecaster.network.state_dict().values()])


def test_a_gap_between_segments_is_not_trained_on(closes):
    """Without validation's say, for which all epochs are trained and the last state kept."""
    gap = {"train": ("2018-01-02", "2018-09-28")}
    changed = closes.copy()
    changed.loc["2018-10-01":"2018-10-25", "close"] *= 1.05
    fits = []
    for frame in (closes, changed):
        model = trained()
        model.training |= {"patience": None}
        fits.append(weights(model.fit(dataset(frame, **gap))))
    assert torch.equal(*fits)


def test_a_recorder_keeps_model_and_signal(closes):
    from qlib.workflow import R
    from qlib.workflow.record_temp import SigAnaRecord, SignalRecord

    data, model = dataset(closes), trained()
    with R.start(experiment_name="qtorch"):
        model.fit(data)
        recorder = R.get_recorder()
        R.save_objects(**{"params.pkl": model})
        SignalRecord(model, data, recorder).generate()
        SigAnaRecord(recorder).generate()
        kept, signal, ic = (recorder.load_object(each) for each in ("params.pkl", "pred.pkl", "sig_analysis/ic.pkl"))
    pd.testing.assert_series_equal(kept.predict(data), model.predict(data))
    pd.testing.assert_series_equal(signal["score"], model.predict(data))
    wide = closes["close"].unstack()
    label = (wide.shift(-1) / wide - 1).loc["2019-02-01":]
    expected = signal["score"].unstack().corrwith(label, axis=1).dropna()
    np.testing.assert_allclose(ic.dropna(), expected, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # qlib's indicators, of the day before the first signal
def test_a_strategy_of_qlibs_trades_the_scores(closes):
    """The best two of five, held in qlib's own account, on quotes of orders that are not traded."""
    from qlib.backtest import backtest
    from qlib.contrib.strategy import TopkDropoutStrategy

    from qtorch.backtest import Signals
    from qtorch.backtest.adapters import to_qlib

    data, model = dataset(closes), trained(score=less_risk)
    scores = model.fit(data).predict(data)
    panel = Panel.from_frame(closes.reset_index().rename(columns={"datetime": "date", "instrument": "asset"}))
    days = panel.dates[panel.dates >= "2019-02-01"]
    orders = Signals.from_panel(panel, pd.DataFrame(0.2, days[:-1], panel.assets)).orders(panel.select(panel.assets))
    arguments = to_qlib(orders)
    arguments |= {"strategy": TopkDropoutStrategy(signal=scores, topk=2, n_drop=1, only_tradable=True)}
    report, positions = backtest(**arguments)[0]["1day"]
    assert report["account"].iloc[-1] != 1e6
    assert len(positions[days[1]].get_stock_list()) == 2
    best = scores.loc[days[0]].nlargest(2).index
    assert set(positions[days[1]].get_stock_list()) == set(best)


def test_a_model_is_pickled_without_qlibs_recorder(closes):
    data = dataset(closes)
    model = trained().fit(data)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    pd.testing.assert_series_equal(again.predict(data), model.predict(data))


def test_what_can_not_be_fit_is_refused(closes):
    model = trained()
    with pytest.raises(ValueError, match="call fit first"):
        model.predict(dataset(closes))
    with pytest.raises(DataError, match=r"features lack \$open; it has \$close"):
        trained(prices={"close": "$close", "open": "$open"}).fit(dataset(closes))
    with pytest.raises(DataError, match="overlap"):
        model.fit(dataset(closes, valid=("2018-10-01", "2018-12-31")))
    with pytest.raises(ValueError, match="reweighter"):
        model.fit(dataset(closes), reweighter=object())
    with pytest.raises(DataError, match=r"no segment 'fresh' among train"):
        model.fit(dataset(closes)).predict(dataset(closes), "fresh")
    with pytest.raises(DataError, match=r"2019-03-01.* has a time zone"):
        model.predict(dataset(closes), slice(pd.Timestamp("2019-03-01", tz="UTC"), None))


def test_prices_that_the_handler_dropped_are_refused(closes):
    with pytest.raises(DataError, match="drop_raw=False"):
        trained().fit(dataset(closes, handler={"drop_raw": True}))


def test_dates_of_another_exchange_are_refused(closes):
    from qtorch.backtest.adapters import QlibForecaster

    with pytest.raises(DataError, match=r"2018-\d\d-\d\d"):
        QlibForecaster(RiskMetrics(SPEC), exchange="XSHG").fit(dataset(closes)).predict(dataset(closes))
