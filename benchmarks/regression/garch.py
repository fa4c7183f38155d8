"""arch's GARCH(1, 1) with Student-t errors, estimated on all rows before the test and filtered through it."""

import math
import time

import torch
from torch import Tensor
from torch.distributions import Distribution

from benchmarks.regression.data import Split
from benchmarks.regression.method import Fitted
from qtorch.distributions import StudentT


def garch(split: Split, seed: int) -> Fitted:
    """The laws of the test rows, which are a series with those before; no seed changes them."""
    from arch import arch_model

    start = time.process_time()
    known = len(split.train.y) + len(split.validation.y)
    outcomes = torch.cat((split.train.y, split.validation.y, split.test.y)).double().numpy()
    model = arch_model(split.unit * outcomes, dist="t", rescale=False)
    estimated = model.fit(last_obs=known, disp="off").params
    volatility = torch.tensor(model.fix(estimated).conditional_volatility[known:]) / split.unit
    nu = torch.tensor(float(estimated["nu"]), dtype=torch.float64)
    mean = torch.tensor(float(estimated["mu"]) / split.unit, dtype=torch.float64)
    law = StudentT(nu, mean, volatility * math.sqrt((nu - 2) / nu))

    def predict(x: Tensor) -> Distribution:
        if x is not split.test.x:
            raise ValueError("GARCH forecasts the test rows alone, which it filters; give split.test.x.")
        return law

    return Fitted(predict, 0, time.process_time() - start)
