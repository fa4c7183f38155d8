import pandas as pd
import torch
from torch.distributions import Normal

from qtorch import Forecast
from qtorch.data.states import State


def normal_forecast(D, N=1, horizons=(1,), scale=1.0, mask=None, observed=None, start="2001-01-01", assets=None):
    """Standard normal laws of batch shape [D, H, N], in float64."""
    dates = pd.bdate_range(start, periods=D)
    mask = torch.ones(D, N, dtype=torch.bool) if mask is None else mask
    observed = torch.ones(D, N, dtype=torch.bool) if observed is None else observed
    state = torch.where(observed, int(State.OBSERVED), int(State.CLOSED)).to(torch.uint8)
    law = Normal(torch.zeros(D, len(horizons), N, dtype=torch.float64), scale)
    assets = tuple(f"A{n}" for n in range(N)) if assets is None else assets
    return Forecast(law, mask, state, dates, assets, horizons)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
