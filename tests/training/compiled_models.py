"""Compiled models beside uncompiled ones, in a process of its own: run-time checks of annotations can't be compiled.

Usage: python -m tests.training.compiled_models forecasts|allocators
"""

import copy
import pickle
import sys
import tempfile
import warnings

import torch

from qtorch import Forecaster, heads, models
from qtorch.deploy import load, save
from qtorch.models import GraphCovariance, Recurrent, TemporalTransformer
from qtorch.nn.graph import GraphSAGE
from qtorch.portfolio import MinimumVariance
from qtorch.training import Allocator, Ensemble, fit, fit_allocator
from tests.deploy.exported import HORIZONS, SPEC, F, moved
from tests.training.counting import counted
from tests.training.runs import small_data, small_panel

QUIET = {"dropout": 0.0, "input_noise": 0.0}  # else compiled code draws other numbers
ENCODERS = {
    "transformer": lambda: TemporalTransformer(F, width=8, depth=1, heads=2, **QUIET),
    "gru": lambda: Recurrent(F, width=8, depth=2, **QUIET),
    "lstm": lambda: Recurrent(F, width=8, cell="lstm", **QUIET),
    "panel": lambda: models.PanelTransformer(F, width=8, depth=1, heads=2, **QUIET),
}


def forecaster(name: str) -> Forecaster:
    torch.manual_seed(0)
    return moved(Forecaster(ENCODERS[name](), heads.StudentT(8, HORIZONS), SPEC)).eval()


def forecasts() -> None:
    """Compiled networks forecast what they do uncompiled, and so do copies of them and what is loaded of them."""
    panel = small_panel()
    dates = panel.dates[-9:]

    def same(model, expected, **options) -> None:
        found = model.forecast(panel, dates, **options)
        assert torch.equal(found.mask, expected.mask)
        torch.testing.assert_close(found.value_at_risk(0.99), expected.value_at_risk(0.99), rtol=1e-5, atol=1e-7)

    warnings.simplefilter("error", UserWarning)
    for name in ENCODERS:
        model = forecaster(name)
        expected = model.forecast(panel, dates)
        with counted() as graphs:
            same(model, expected, compile=True)
        assert len(graphs) == 1, (name, len(graphs))
        with torch.compiler.set_stance("fail_on_recompile"):
            same(model, expected, compile=True, batch_size=5)
            same(model, expected)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
            assert other.network._compiled_call_impl is None
            same(other, expected)
        with tempfile.TemporaryDirectory() as folder:
            save(model, folder)
            loaded = load(folder)[0]
        assert loaded.network._compiled_call_impl is None
        same(loaded, expected)
        with counted() as graphs:
            same(loaded, expected, compile=True)
        assert len(graphs) == 1, (name, len(graphs))
    members = [forecaster(name) for name in ("transformer", "lstm")]
    baseline = models.RiskMetrics(SPEC)
    mixed = Ensemble([Ensemble(members), baseline])
    expected = mixed.forecast(panel, dates)
    with counted() as graphs:
        same(mixed, expected, compile=True)
    assert len(graphs) == 2, len(graphs)
    model = forecaster("lstm")
    with counted() as graphs:
        fit(model, small_data(panel), max_epochs=1, seed=5, compile=True, accelerator="cpu")
    assert len(graphs) == 2, (len(graphs), "of training and of validation")
    with torch.compiler.set_stance("fail_on_recompile"):
        found = model.forecast(panel, dates)  # by the graph of validation
    same(copy.deepcopy(model), found)


class Descending(Allocator):
    """Trained by plain gradient descent, whose steps are as exact as the gradients.

    AdamW makes steps of the full size of whatever gradient there is. That of `move.bias` of a `GraphCovariance`, which
    the level takes out again, is at first an error of rounding, and compiled code has another: by AdamW that weight
    alone ends up a twelfth of its way apart, where all others are 2e-5 of theirs or less.
    """

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def allocators() -> None:
    """A compiled allocator learns what it learns uncompiled, by one graph each for training and decisions."""
    panel, made = small_panel(), []
    for compile in (False, True):
        torch.manual_seed(0)
        mixer = models.OverGraph(GraphSAGE(8, 8))
        states = models.AssetGraph(Recurrent(F, width=4, **QUIET), estimates=2, width=8, mixers=[mixer])
        settings = {"half_lives": (63.0, 126.0), "every": 5, "length": 4, "min_history": 70}
        model = Descending(GraphCovariance(states), MinimumVariance(upper=0.5), SPEC, **settings)
        before = copy.deepcopy(model.state_dict())
        with counted() as graphs:
            fit_allocator(model, panel, steps=5, batch_size=2, compile=compile, accelerator="cpu")
        made.append(model)
        assert bool(graphs) == compile
    trained = len(graphs)
    plain, compiled = made
    assert compiled.state_dict().keys() == before.keys()
    for name, first in before.items():
        one, other = (m.state_dict()[name] for m in made)
        apart, moved_by = (torch.linalg.vector_norm(other - x).item() for x in (one, first))
        assert apart <= 1e-5 * moved_by, (name, apart, moved_by)
        assert moved_by > 1e-3, (name, moved_by)
    a, b = (model.allocate(panel, panel.dates[-30:]) for model in made)
    assert (a - b).abs().max(axis=None) < 1e-6
    c = plain.allocate(panel, panel.dates[-1])
    assert (compiled.allocate(panel, panel.dates[-1]) - c).abs().max(axis=None) < 1e-6
    print("graphs:", trained, "of training,", len(graphs) - trained, "of decisions")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
