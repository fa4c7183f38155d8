"""Shared fixtures; annotations of shapes are checked at run time in the whole suite."""

from jaxtyping import install_import_hook

hook = install_import_hook("qtorch", "beartype.beartype")
hook.__enter__()

import lightning  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from qtorch import Forecaster, heads, models  # noqa: E402
from qtorch.data import Panel, WindowSpec, load_sample  # noqa: E402


@pytest.fixture(autouse=True)
def seed():
    lightning.seed_everything(1, verbose=False)


@pytest.fixture(scope="session")
def sample() -> pd.DataFrame:
    return load_sample()


@pytest.fixture(scope="session")
def panel(sample) -> Panel:
    """The sample's last years, with the indices that ended long ago."""
    return Panel.from_frame(sample[sample["date"] >= "2017-01-01"])


@pytest.fixture
def prices() -> pd.DataFrame:
    """Three months of three assets on two exchanges, in long format; 4 July closes New York alone."""
    return make_prices({"AAA": "XNYS", "BBB": "XNYS", "EEE": "XECB"}, "2019-06-03", "2019-08-30")


def make_prices(exchanges: dict[str, str], start: str, end: str, seed: int = 0) -> pd.DataFrame:
    """Random walks on the sessions of each asset's exchange."""
    from qtorch.data import sessions

    rng = np.random.default_rng(seed)
    frames = []
    for asset, code in exchanges.items():
        days = sessions(code, pd.Timestamp(start), pd.Timestamp(end)).days
        days = days[days <= end]
        close = 100 * np.exp(np.cumsum(0.01 * rng.standard_t(5, len(days))))
        frames.append(pd.DataFrame({"date": days, "asset": asset, "exchange": code, "close": close}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def spec() -> WindowSpec:
    return WindowSpec(context=16, horizons=(1, 5))


@pytest.fixture
def model(spec) -> Forecaster:
    """A small model whose forecasts depend on its inputs."""
    return make_model(spec)


def make_model(spec: WindowSpec) -> Forecaster:
    encoder = models.Transformer(len(spec.features), width=16, depth=2, heads=2, dropout=0.0)
    head = heads.SkewedStudentT(encoder.out_features, spec.horizons)
    torch.nn.init.normal_(head.project.weight, std=0.3)
    return Forecaster(encoder, head, spec).eval()
