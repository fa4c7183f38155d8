"""Scores of a method's laws of the test rows, and their table with paired differences."""

import math

import numpy as np
import pandas as pd
import torch
from torch.distributions import Distribution

from benchmarks.regression.data import Split
from qtorch.distributions import Empirical, Mixture
from qtorch.risk import crps, log_score

SAMPLES = 4800


def scores(law: Distribution, split: Split) -> dict[str, float]:
    """Of the test rows, in the data's unit."""
    y = split.test.y.double()
    u = law.cdf(y)
    sharp = law
    if isinstance(law, Mixture):  # of equal weights; quadrature would invert its distribution function at every node
        torch.manual_seed(0)
        drawn = law.components.sample((SAMPLES // law.weights.shape[-1],)).double()
        sharp = Empirical(drawn.movedim(0, -1).flatten(1))
    return {
        "nll": float(log_score(law, y).mean()) + math.log(split.unit),
        "crps": float(crps(sharp, y).mean()) * split.unit,
        "coverage_90": float(((u > 0.05) & (u < 0.95)).double().mean()),
        "below_1": float((u < 0.01).double().mean()),
        "rows": len(y),
    }


def table(runs: pd.DataFrame, first: str) -> str:
    """A line for each method: means over all test rows, and differences to the first paired by split and seed."""
    pairs = runs.pivot(index=["split", "seed"], columns="method", values="nll")
    head = ["", "NLL", f"less {first}'s", "CRPS", "within 90 %", "below 1 %", "fit, s", "epoch, ms"]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for name in runs["method"].unique():
        own = runs[runs["method"] == name]
        mean = {c: np.average(own[c], weights=own["rows"]) for c in ("nll", "crps", "coverage_90", "below_1")}
        gap = "" if name == first or first not in pairs else paired((pairs[name] - pairs[first]).dropna())
        epochs = own["epochs"].sum()
        epoch = f"{1000 * own['seconds'].sum() / epochs:.1f}" if epochs else ""
        lines.append(
            f"| {name} | {mean['nll']:.4f} | {gap} | {mean['crps']:.4f} | {100 * mean['coverage_90']:.1f} | "
            f"{100 * mean['below_1']:.2f} | {own['seconds'].mean():.1f} | {epoch} |"
        )
    return "\n".join(lines)


def paired(difference: pd.Series) -> str:
    """The mean, and its standard error over splits: seeds share a split's data, and tell nothing new of others."""
    each = difference.groupby("split").mean()
    error = each.std() / max(len(each), 1) ** 0.5
    return f"{each.mean():+.4f} ({error:.4f})"
