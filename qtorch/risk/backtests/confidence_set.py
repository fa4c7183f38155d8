"""Hansen, Lunde and Nason's set of the models that the data cannot tell from the best."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from qtorch.distributions.checks import require
from qtorch.risk.backtests.result import PanelResult, flat, series_index
from qtorch.risk.backtests.series import usable

_CHUNK = 1 << 24  # bootstrapped differences held at once


@dataclass(frozen=True, eq=False, repr=False)
class ConfidenceSet(PanelResult):
    """Models' p-values for every series of a panel.

    Attributes:
        name: of the procedure.
        p_value: of each model; NaN where the series has too few observations.
        mean_loss: of each model.
        observations: how many rows were used.
        models: the models' names.
    """

    name: str
    p_value: Float64[Tensor, "M *series"]
    mean_loss: Float64[Tensor, "M *series"]
    observations: Int64[Tensor, "*series"]
    models: tuple[Hashable, ...]

    def included(self, size: float = 0.10) -> Bool[Tensor, "M *series"]:
        """Whether each model belongs to the set of confidence 1 - size."""
        return self.p_value >= size

    def to_frame(self, names: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """One row for each series, one column of p-values for each model.

        Args:
            names: of the series; their positions by default.
        """
        columns = {model: flat(p) for model, p in zip(self.models, self.p_value, strict=True)}
        return pd.DataFrame(columns, index=series_index(self.observations.shape, names))

    def _lines(self, frame: pd.DataFrame) -> list[str]:
        lines = [self.name, "p-value of each model; those of at least 10 % are in the 90 % set"]
        if len(frame) > 1:
            share = (frame >= 0.10).sum() / frame.notna().sum().clip(lower=1)
            lines.append("in the set: " + ", ".join(f"{model} {s:.1%}" for model, s in share.items()))
        return lines

    def _worst(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.iloc[np.argsort((frame >= 0.10).sum(axis=1).to_numpy(), kind="stable")[:5]]


def model_confidence_set(
    losses: Float[Tensor, "T M *series"],
    mask: Bool[Tensor, "T *series"] | None = None,
    method: str = "range",
    block: int = 10,
    draws: int = 1000,
    models: Sequence[Hashable] | None = None,
    generator: torch.Generator | None = None,
) -> ConfidenceSet:
    """Model confidence set: the worst model is removed until equal mean losses are not rejected.

    Mean losses are resampled by the stationary bootstrap of Politis and Romano; their variance over the samples
    studentises the differences. `range`: T = max |t_ij| over pairs, the model with the largest t_ij goes. `max`: T =
    max t_i of each model's difference to the mean of those left, the model with the largest goes. A model's p-value is
    the largest of the tests up to its removal; the last has 1. Models with the same losses throughout count as equal.

    All series are resampled by the same dates, of which a series takes those that it has. NaN with fewer than two
    observations of all models.

    Size: of 5 equal models the 90 % set misses at least one in 14 to 17 % of samples of 250 and 500 independent
    sessions, and in 11 to 13 % of 1,500.

    Args:
        losses: of each model.
        mask: which days count, all by default; a day with a NaN loss of any model never does.
        method: "range" or "max".
        block: mean length of the blocks of dates that are resampled; at least the overlap of the windows.
        draws: samples.
        models: their names; their positions by default.
        generator: of the draws.

    Raises:
        ValueError: shapes differ, there is no session, or the method, the block, the draws or the names are not as
            described.

    References:
        Hansen, Lunde and Nason (2011), The model confidence set, Econometrica 79, section 3.1.2; Politis and Romano
        (1994), The stationary bootstrap, JASA 89.
    """
    require(method in ("range", "max"), "method", method, 'give "range" or "max"')
    require(block >= 1, "block", block, "give the mean length of the resampled blocks, 1 or more")
    require(draws >= 1, "draws", draws, "draw at least one sample")
    rows, count, *shape = losses.shape
    require(rows >= 1, "losses", tuple(losses.shape), "give [T, M, *series] with a session at least")
    labels = tuple(range(count)) if models is None else tuple(models)
    require(len(labels) == count, "models", labels, f"give one name for each of the {count} models")
    everyone = torch.where(losses.isfinite().all(1), 0.0, torch.nan)
    there = usable(mask, losses=everyone)
    n = there.sum(0)
    flat_there = there.reshape(rows, -1)
    x = torch.where(flat_there.unsqueeze(1), losses.double().reshape(rows, count, -1), 0.0)
    weights = resampled(rows, draws, block, generator).to(losses.device)
    mean = x.sum(0) / n.reshape(-1).clamp(min=1)
    p_value = torch.full_like(mean, torch.nan)
    step = max(1, _CHUNK // (draws * count * (max(1, count // 2) if method == "range" else 1)))
    for part in torch.arange(mean.shape[1], device=losses.device).split(step):
        number = (weights @ flat_there[:, part].double()).clamp(min=1)
        sums = (weights @ x[:, :, part].reshape(rows, -1)).view(draws, count, len(part))
        p_value[:, part] = _eliminated(mean[:, part], sums / number.unsqueeze(1), method)
    p_value = torch.where(n.reshape(-1) > 1, p_value, torch.nan).view(count, *shape)
    return ConfidenceSet("model confidence set", p_value, mean.view(count, *shape), n, labels)


def resampled(rows: int, draws: int, block: int, generator: torch.Generator | None) -> Float64[Tensor, "S T"]:
    """How often each date is drawn: blocks of geometric length from a uniform start, around the end."""
    device = torch.device("cpu") if generator is None else generator.device
    new = torch.rand(draws, rows, generator=generator, device=device) < 1 / block
    new[:, 0] = True
    start = torch.randint(rows, (draws, rows), generator=generator, device=device)
    place = torch.arange(rows, device=device).expand(draws, -1)
    begun = torch.where(new, place, 0).cummax(1).values
    date = (start.gather(1, begun) + place - begun) % rows
    weights = torch.zeros(draws, rows, dtype=torch.float64, device=device)
    return weights.scatter_add(1, date, torch.ones_like(weights))


def _eliminated(mean: Tensor, resampled: Tensor, method: str) -> Float64[Tensor, "M series"]:
    """P-values of the models of each series, all series one removal at a time.

    Args:
        mean: `[M, N]`.
        resampled: `[S, M, N]`.
        method: "range" or "max".
    """
    count, series = mean.shape
    error = resampled - mean
    alive = torch.ones(count, series, dtype=torch.bool, device=mean.device)
    p_value = torch.ones_like(mean)
    running = torch.zeros(series, dtype=torch.float64, device=mean.device)
    if method == "range":
        one, other = torch.triu_indices(count, count, offset=1, device=mean.device)
        noise = error[:, one] - error[:, other]
        spread = (noise**2).mean(0).sqrt()
        t, noise = _ratio(mean[one] - mean[other], spread), _ratio(noise, spread).abs()
    for _ in range(count - 1):
        if method == "range":
            pair = alive[one] & alive[other]
            simulated = torch.where(pair, noise, 0.0).amax(1)
            both = torch.where(pair, torch.stack([t, -t]), -torch.inf)
            statistic, place = both.flatten(0, 1).max(0)
            worst = torch.cat([one, other])[place]
        else:
            left = alive.sum(0)
            average = torch.where(alive, mean, 0.0).sum(0) / left
            shift = error - (torch.where(alive, error, 0.0).sum(1) / left).unsqueeze(1)
            spread = (shift**2).mean(0).sqrt()
            observed = torch.where(alive, _ratio(mean - average, spread), -torch.inf)
            simulated = torch.where(alive, _ratio(shift, spread), -torch.inf).amax(1)
            worst, statistic = observed.argmax(0), observed.amax(0)
        running = torch.maximum(running, (simulated >= statistic).double().mean(0))
        p_value.scatter_(0, worst.unsqueeze(0), running.unsqueeze(0))
        alive = alive.scatter(0, worst.unsqueeze(0), False)
    return p_value


def _ratio(x: Tensor, spread: Tensor) -> Tensor:
    """Studentised differences: 0 where losses do not differ, beyond all samples where they do by a constant."""
    return torch.where(x == 0, 0.0, x / spread.clamp(min=1e-150))
