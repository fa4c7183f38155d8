"""The loaders that `loader.py` times: qtorch, the limit, and others on the same panel, each at its usual and its best.

An adapter takes a `Task` and yields batches without end: a dictionary of `past` [B, C(, 1)], `future` [B, H(, 1)],
`past_mask` and `future_mask` of the same shapes (None where a library has none), and for `check` the place of the
windows. Libraries are imported inside, since few environments hold them all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

Batches = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What every loader delivers: windows, drawn at random, of one panel of prices.

    Attributes:
        assets: `N`.
        sessions: `T`.
        missing: share of the entries without a price.
        context: past steps of a window.
        horizon: future steps of a window.
        batch: windows a batch.
    """

    assets: int = 500
    sessions: int = 5000
    missing: float = 0.04
    context: int = 256
    horizon: int = 10
    batch: int = 256

    @property
    def window(self) -> int:
        """Steps of a window, past and future."""
        return self.context + self.horizon

    @cached_property
    def dates(self) -> pd.DatetimeIndex:
        """Business days."""
        return pd.bdate_range("2001-01-01", periods=self.sessions, name="date")

    @cached_property
    def prices(self) -> np.ndarray:
        """Prices [N, T] in float32, NaN where missing: random walks of Student-t(4) steps, the same in each process."""
        rng = np.random.default_rng(0)
        shape = (self.assets, self.sessions)
        prices = 50 * np.exp(0.01 * rng.standard_t(4, shape).cumsum(1))
        hole = rng.random(shape) < self.missing
        hole[:, [0, -1]] = False  # some libraries would cut a series there
        return np.where(hole, np.nan, prices).astype(np.float32)

    def frame(self, holes: bool) -> pd.DataFrame:
        """The prices as rows of asset, step, date and price, with or without those that are missing."""
        asset, step = (axis.ravel() for axis in np.indices(self.prices.shape))
        name = np.array([f"A{n:04d}" for n in range(self.assets)])[asset]
        frame = pd.DataFrame({"asset": name, "step": step, "date": self.dates[step], "price": self.prices.ravel()})
        return frame if holes else frame.dropna().reset_index(drop=True)


@dataclass(frozen=True)
class Loader:
    """How one loader is built and checked.

    Attributes:
        label: its name in the table.
        needs: the module that an interpreter must have.
        build: the adapter.
        check: raises if a batch does not hold what the panel does; None where a library does not say which windows
            it gave.
    """

    label: str
    needs: str
    build: Callable[[Task], Batches]
    check: Callable[[Task, dict[str, Any]], None] | None = None


def limit(task: Task) -> Batches:
    """`index_select` on overlapping views of the values and their masks: a copy of memory a window, no more."""
    import torch

    prices = torch.from_numpy(task.prices)
    values, masks = (x.flatten().unfold(0, task.window, 1) for x in (prices.nan_to_num(), ~prices.isnan()))
    for start in _starts(task):
        value, mask = values.index_select(0, start), masks.index_select(0, start)
        yield _cut(task, value, mask) | {"start": start}


def advanced_indexing(task: Task) -> Batches:
    """The usual way to write it: a table of indices."""
    import torch

    prices = torch.from_numpy(task.prices).flatten()
    values, masks, steps = prices.nan_to_num(), ~prices.isnan(), torch.arange(task.window)
    for start in _starts(task):
        index = start[:, None] + steps
        yield _cut(task, values[index], masks[index]) | {"start": start}


def torch_dataset(task: Task) -> Batches:
    """A window an item, put together by torch's DataLoader."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    prices = torch.from_numpy(task.prices)
    values, masks = prices.nan_to_num(), ~prices.isnan()
    per_asset = task.sessions - task.window + 1

    class Windows(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return task.assets * per_asset

        def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor, int]:
            asset, first = divmod(item, per_asset)
            span = slice(first, first + task.window)
            return values[asset, span], masks[asset, span], asset * task.sessions + first

    while True:
        for value, mask, start in DataLoader(Windows(), batch_size=task.batch, shuffle=True, drop_last=True):
            yield _cut(task, value, mask) | {"start": start}


def check_axis(task: Task, batch: dict[str, Any]) -> None:
    """Windows on the panel's axis hold the panel's values, zeros for its holes, and masks that tell them apart."""
    for i, first in enumerate(batch["start"].tolist()):
        expected = task.prices.ravel()[first : first + task.window]
        value, mask = (np.concatenate([batch["past" + of][i], batch["future" + of][i]]) for of in ("", "_mask"))
        np.testing.assert_array_equal(value, np.nan_to_num(expected))
        np.testing.assert_array_equal(mask, ~np.isnan(expected))


def _starts(task: Task) -> Iterator[Any]:
    """Where windows begin in the flattened panel, in batches; drawn for many at once, as a call costs more than it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    per_asset = task.sessions - task.window + 1
    while True:
        draw = torch.randint(task.assets * per_asset, (4096 * task.batch,), generator=generator)
        yield from (draw // per_asset * task.sessions + draw % per_asset).split(task.batch)


def _cut(task: Task, values: Any, masks: Any) -> dict[str, Any]:
    C = task.context
    return {"past": values[:, :C], "past_mask": masks[:, :C], "future": values[:, C:], "future_mask": masks[:, C:]}


def qtorch_training(task: Task) -> Batches:
    """What a Trainer is given: random training batches of a `DataModule`."""
    from qtorch.data import DataModule

    source = _source(task)
    data = DataModule(
        source.panel,
        source.spec,
        source=source,
        validation_start=source.panel.dates[-50],
        batch_size=task.batch,
        batches_per_epoch=4096,
        every_position=False,
    )
    loader = data.train_dataloader()
    while True:
        for window in loader:
            yield _masked(window)


def qtorch_gather(task: Task) -> Batches:
    """`WindowSource.gather`, a batch at a time."""
    import torch

    source = _source(task)
    entries = source.entries()
    while True:
        for some in entries[torch.randint(len(entries), (4096 * task.batch,))].split(task.batch):
            yield _masked(source.gather(some))


def check_own(task: Task, batch: dict[str, Any]) -> None:
    """Windows of own sessions hold the asset's last prices, and its returns over its next sessions."""
    C, H = task.context, task.horizon
    for i, (asset, row) in enumerate(zip(batch["asset"].tolist(), batch["row"].tolist(), strict=True)):
        prices = task.prices[asset]
        before = prices[: row + 1][~np.isnan(prices[: row + 1])][-C:]
        after = prices[row + 1 :][~np.isnan(prices[row + 1 :])][:H]
        mask, known = batch["past_mask"][i].numpy(), batch["future_mask"][i].numpy()
        np.testing.assert_array_equal(batch["past"][i, mask, 0], before[-mask.sum() :])
        np.testing.assert_allclose(
            batch["future"][i, known], (after.astype(float) / before[-1] - 1)[known[: len(after)]], rtol=1e-6, atol=1e-7
        )
        assert not batch["past"][i, ~mask].any(), "a masked price is not 0"
        assert mask.sum() >= min(C, len(before) - 2), "a price is masked"
        assert known.sum() == len(after) or row > task.sessions - 80, "a target is masked"  # before validation


def _source(task: Task) -> Any:
    """Windows whose one input is the close, from the second return of an asset on."""
    from qtorch.data import Features, Panel, WindowSource, WindowSpec
    from qtorch.data.features import Field

    closes = pd.DataFrame(task.prices.T.astype(float), index=task.dates).rename(columns="A{:04d}".format)
    spec = WindowSpec(task.context, tuple(range(1, task.horizon + 1)), Features((Field("close"),), warm_up=1))
    return WindowSource(Panel.from_frame(closes, exchange="24/5"), spec)


def _masked(window: Any) -> dict[str, Any]:
    return {
        "past": window.inputs,
        "past_mask": window.mask,
        "future": window.target,
        "future_mask": window.target_mask,
        "asset": window.asset_index,
        "row": window.row_index,
    }


def gluonts(task: Task, cached: bool = False, frequency: str = "B") -> Batches:
    """What its PatchTST estimator feeds its trainer; whole windows only, as everywhere here."""
    from gluonts.itertools import Cached
    from gluonts.torch.model.patch_tst import PatchTSTEstimator
    from gluonts.transform import ExpectedNumInstanceSampler

    estimator = PatchTSTEstimator(
        prediction_length=task.horizon,
        context_length=task.context,
        patch_len=16,
        batch_size=task.batch,
        num_batches_per_epoch=1 << 40,
        train_sampler=ExpectedNumInstanceSampler(num_instances=1.0, min_past=task.context, min_future=task.horizon),
    )
    begin = pd.Period(task.dates[0], frequency)
    series = [{"item_id": str(n), "start": begin, "target": prices} for n, prices in enumerate(task.prices)]
    prepared = estimator.create_transformation().apply(series, is_train=True)
    for batch in estimator.create_training_data_loader(Cached(prepared) if cached else prepared, module=None):
        yield {
            "past": batch["past_target"],
            "past_mask": batch["past_observed_values"],
            "future": batch["future_target"],
            "future_mask": batch["future_observed_values"],
        }


def gluonts_best(task: Task) -> Batches:
    """Holes filled once a series, and calendar days, which pandas handles faster than business days."""
    return gluonts(task, cached=True, frequency="D")


def neuralforecast(task: Task, series: int = 32) -> Batches:
    """Its training step up to the network; it refuses NaN, so zeros stand for holes beside its availability mask."""
    import torch
    from neuralforecast.models import PatchTST
    from neuralforecast.tsdataset import TimeSeriesDataModule, TimeSeriesDataset

    frame = task.frame(holes=True)
    frame["available_mask"] = frame["price"].notna().astype("float32")
    frame["price"] = frame["price"].fillna(0)
    columns = {"id_col": "asset", "time_col": "date", "target_col": "price"}
    dataset = TimeSeriesDataset.from_df(frame.drop(columns="step"), **columns)[0]
    model = PatchTST(h=task.horizon, input_size=task.context, windows_batch_size=task.batch, batch_size=series)
    data = TimeSeriesDataModule(dataset, batch_size=series)
    while True:
        for raw in data.train_dataloader():
            temporal, static, static_names, whole, weight, names = model._create_windows(raw, step="train")
            sample = model._sample_windows(
                temporal, static, static_names, names, torch.randperm(len(whole))[: task.batch], whole, weight
            )
            sample = model._normalization(windows=sample, y_idx=raw["y_idx"])
            past, past_mask, future, future_mask = model._parse_windows(raw, sample)[:4]
            yield {"past": past, "past_mask": past_mask, "future": future, "future_mask": future_mask}


def neuralforecast_best(task: Task) -> Batches:
    """One series a batch: all windows of the series in a batch are built before some are drawn."""
    return neuralforecast(task, series=1)


def darts(task: Task) -> Batches:
    """The training dataset and the collation of its torch models; NaN stay in the values."""
    from darts import TimeSeries
    from darts.models.forecasting.torch_forecasting_model import TorchForecastingModel
    from darts.utils.data.torch_datasets.training_dataset import SequentialTorchTrainingDataset
    from torch.utils.data import DataLoader

    windows = SequentialTorchTrainingDataset(
        [TimeSeries.from_times_and_values(task.dates, prices) for prices in task.prices],
        input_chunk_length=task.context,
        output_chunk_length=task.horizon,
        use_static_covariates=False,
    )
    collate = TorchForecastingModel._batch_collate_fn
    while True:
        for batch in DataLoader(windows, task.batch, shuffle=True, drop_last=True, collate_fn=collate):
            yield {"past": batch[0], "past_mask": None, "future": batch[-1], "future_mask": None}


def qlib(task: Task, whole_batches: bool = False) -> Batches:
    """Its sampler of rolling windows under torch's DataLoader, as in its torch models; masks from its NaN."""
    from qlib.data.dataset import TSDataSampler
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    frame = task.frame(holes=False).rename(columns={"date": "datetime", "asset": "instrument"})
    frame = frame.set_index(["datetime", "instrument"])[["price"]].sort_index()
    windows = TSDataSampler(frame, start=task.dates[task.window - 1], end=task.dates[-1], step_len=task.window)
    options: dict[str, Any] = {"batch_size": task.batch, "shuffle": True, "drop_last": True}
    if whole_batches:
        batches = BatchSampler(RandomSampler(windows), task.batch, drop_last=True)
        options = {"batch_size": None, "sampler": batches}
    while True:
        for batch in DataLoader(windows, **options):
            values = batch[..., 0]
            yield _cut(task, values, ~values.isnan())


def qlib_best(task: Task) -> Batches:
    """A list of items at once, which its sampler takes too."""
    return qlib(task, whole_batches=True)


def pytorch_forecasting(task: Task, best: bool = False) -> Batches:
    """Its data set's own loader: rows left out where a price is missing, which it fills."""
    from pytorch_forecasting import GroupNormalizer, TimeSeriesDataSet

    frame = task.frame(holes=best)
    if best:
        frame["price"] = frame.groupby("asset")["price"].ffill()
    windows = TimeSeriesDataSet(
        frame.drop(columns="date"),
        time_idx="step",
        target="price",
        group_ids=["asset"],
        min_encoder_length=task.context,
        max_encoder_length=task.context,
        min_prediction_length=task.horizon,
        max_prediction_length=task.horizon,
        time_varying_unknown_reals=["price"],
        allow_missing_timesteps=not best,
        target_normalizer=GroupNormalizer(groups=["asset"]) if best else "auto",
    )
    while True:
        for inputs, (future, _) in windows.to_dataloader(train=True, batch_size=task.batch, num_workers=0):
            yield {"past": inputs["encoder_cont"], "past_mask": None, "future": future, "future_mask": None}


def pytorch_forecasting_best(task: Task) -> Batches:
    """Normalised by series once, and no step missing: filled beforehand."""
    return pytorch_forecasting(task, best=True)


LOADERS = {
    "limit": Loader("limit: `index_select` on views", "torch", limit, check_axis),
    "qtorch": Loader("**qtorch**, `DataModule`", "qtorch", qtorch_training, check_own),
    "qtorch_gather": Loader("qtorch, `WindowSource.gather` a batch", "qtorch", qtorch_gather, check_own),
    "advanced_indexing": Loader("torch, `values[start[:, None] + steps]`", "torch", advanced_indexing, check_axis),
    "torch_dataset": Loader("torch, a `Dataset` of windows", "torch", torch_dataset, check_axis),
    "neuralforecast_best": Loader("NeuralForecast, one series a batch", "neuralforecast.models", neuralforecast_best),
    "neuralforecast": Loader("NeuralForecast", "neuralforecast.models", neuralforecast),
    "darts": Loader("Darts", "darts.models", darts),
    "qlib_best": Loader("qlib, lists of items", "qlib.data.dataset", qlib_best),
    "qlib": Loader("qlib", "qlib.data.dataset", qlib),
    "gluonts_best": Loader("GluonTS, cached, calendar days", "gluonts.torch", gluonts_best),
    "gluonts": Loader("GluonTS", "gluonts.torch", gluonts),
    "pytorch_forecasting_best": Loader(
        "PyTorch Forecasting, filled, one normaliser", "pytorch_forecasting", pytorch_forecasting_best
    ),
    "pytorch_forecasting": Loader("PyTorch Forecasting", "pytorch_forecasting", pytorch_forecasting),
}
