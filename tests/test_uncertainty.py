"""The benchmark of uncertainty: when training stops and what it keeps, scores, and paired differences."""

import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from benchmarks.regression.data import Part, Split
from benchmarks.regression.heads import NormalRegression, StudentTRegression
from benchmarks.regression.networks import Layers, Regression, Together
from benchmarks.regression.scores import paired, scores, table
from benchmarks.regression.swag import swag
from benchmarks.regression.training import RATE, fit
from benchmarks.regression.variational import unsure
from qtorch.heads import Ensemble
from qtorch.models import EncoderEnsemble


def small_split(epochs=50, patience=3, batch=64, rows=48):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, rows, 2, generator=generator)
    y = x[..., 0] + 0.5 * torch.randn(3, rows, generator=generator)
    return Split("small", *(Part(a, b) for a, b in zip(x, y, strict=True)), 2.0, epochs, patience, batch)


class Climbing(nn.Module):
    """Weights that each step raises by the rate."""

    def __init__(self, stacked: bool) -> None:
        super().__init__()
        self.stacked, self.w = stacked, nn.Parameter(torch.zeros(*((3, 1) if stacked else (1,))))


def after(epochs):
    """The weight after so many epochs of one step."""
    return RATE * epochs


def test_training_stops_early_and_keeps_the_best_weights():
    network = Climbing(stacked=False)

    def loss(network, part, rows):
        return -network.w.sum() if network.training else (network.w - after(5)).abs().sum()

    assert fit(network, small_split(), 0, loss) == 5 + 3 + 1
    assert float(network.w.detach()) == pytest.approx(after(5), abs=1e-5)
    assert not network.training


def test_members_stop_by_themselves():
    """The first is best after 5 epochs; what would be better after 15 comes when it has stopped."""
    network, best = Climbing(stacked=True), torch.tensor([after(5), after(12), after(20)])

    def loss(network, part, rows):
        if network.training:
            return -network.w.sum()
        w = network.w[:, 0]
        late = torch.tensor([True, False, False]) & (w > after(14.5))
        return torch.where(late, -1.0, (w - best).abs())

    assert fit(network, small_split(), 0, loss) == 20 + 3 + 1
    torch.testing.assert_close(network.w.detach()[:, 0], best, rtol=0, atol=1e-5)


def test_training_ends_with_the_last_epoch():
    network = Climbing(stacked=False)
    assert fit(network, small_split(epochs=4), 0, lambda network, part, rows: -network.w.sum()) == 4
    assert float(network.w.detach()) == pytest.approx(after(4), abs=1e-5)


def networks(head):
    torch.manual_seed(0)
    return [Regression(Layers(2), head(64)) for _ in range(2)]


@pytest.mark.parametrize("head", [NormalRegression, StudentTRegression])
def test_members_fitted_together_are_those_fitted_alone(head):
    split, apart = small_split(epochs=6, batch=16), networks(head)
    together = Regression(EncoderEnsemble.of([one.encoder for one in apart]), Ensemble.of([one.head for one in apart]))
    fit(together, split, 1)
    for one in apart:
        fit(one, split, 1)
    law = together(split.test.x).components
    for k, one in enumerate(apart):
        expected = one(split.test.x).mean
        torch.testing.assert_close(law.mean[..., k], expected, rtol=1e-3, atol=1e-3)


def test_variational_networks_together_have_the_law_of_each():
    split = small_split()
    apart = [unsure(split, k, StudentTRegression, None).eval() for k in range(2)]
    together = Together(apart).eval()
    parameters, penalties = together.each(split.test.x)
    for k, one in enumerate(apart):
        for part, expected in zip(parameters, one.parameters_of(split.test.x), strict=True):
            torch.testing.assert_close(part[k], expected)
        torch.testing.assert_close(penalties[k], one.head.penalty())
    y = split.test.y[:, None]
    each = torch.stack([one(split.test.x).log_prob(y) for one in apart]).double()
    expected = each.logsumexp(0) - math.log(2)
    torch.testing.assert_close(together.law(split.test.x).log_prob(y).double(), expected, rtol=1e-5, atol=1e-5)


def test_swag_is_a_mixture_around_the_network(monkeypatch):
    monkeypatch.setattr("benchmarks.regression.swag.EVERY", 2)
    split = small_split(epochs=2)
    fitted = swag(NormalRegression)(split, 0)
    law = fitted.predict(split.test.x)
    assert law.components.mean.shape == (48, 32)
    assert (law.components.mean.std(-1) > 0).all()
    again = swag(NormalRegression)(split, 0).predict(split.test.x)
    torch.testing.assert_close(again.mean, law.mean, rtol=0, atol=0)


def test_scores_are_in_the_unit_of_the_outcomes():
    split = small_split(rows=20_000)
    split = split._replace(test=Part(split.test.x, torch.linspace(-2, 2, 401)))
    result = scores(Normal(torch.zeros(401), torch.ones(401)), split)
    inside = int((split.test.y.abs() < 1.6448536).sum()) / 401
    assert result["coverage_90"] == pytest.approx(inside)
    assert result["below_1"] == 0.0
    assert result["rows"] == 401
    # Of y = 2 z with z as above, under N(0, 2^2).
    expected = -Normal(0.0, 2.0).log_prob(2 * split.test.y).mean()
    assert result["nll"] == pytest.approx(float(expected), abs=1e-6)


DIFFERENCES = {("a", 0): 0.1, ("a", 1): 0.3, ("b", 0): -0.2, ("b", 1): 0.0, ("c", 0): 0.6, ("c", 1): 0.2}


def test_standard_errors_are_over_splits():
    """Means of the splits are 0.2, -0.1 and 0.4, of mean 1/6 and variance 0.19/3."""
    difference = pd.Series(DIFFERENCES).rename_axis(["split", "seed"])
    mean, error = 0.5 / 3, math.sqrt(0.19 / 3) / math.sqrt(3)
    assert paired(difference) == f"{mean:+.4f} ({error:.4f})"


def test_differences_pair_runs_of_the_same_split_and_seed():
    """What has no partner is left out of the difference."""
    runs = []
    for number, ((split, seed), gap) in enumerate(DIFFERENCES.items()):
        common = {"split": split, "seed": seed, "crps": 1.0, "coverage_90": 0.9, "below_1": 0.01, "rows": 10}
        common |= {"seconds": 2.0, "epochs": 4}
        runs.append(common | {"method": "first", "nll": 1.0 + number})
        runs.append(common | {"method": "other", "nll": 1.0 + number + gap})
    runs.append(runs[-1] | {"split": "d", "nll": 99.0})
    lines = table(pd.DataFrame(runs), "first").splitlines()
    mean, error = 0.5 / 3, math.sqrt(0.19 / 3) / math.sqrt(3)
    assert f"| {mean:+.4f} ({error:.4f}) |" in lines[3]
    assert lines[2].startswith("| first | 3.5000 |")
    assert lines[2].endswith("| 2.0 | 500.0 |")
    assert "| 3.5000 |  | 1.0000 |" in lines[2]
