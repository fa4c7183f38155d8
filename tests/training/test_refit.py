"""Refits know the rows up to theirs, and depend on nothing but their arguments."""

import pytest
import torch

from qtorch.data import WindowSource
from qtorch.training import refit
from qtorch.training.refit import known_by
from tests.training.runs import SPEC, same_weights, small_model, small_panel

REFITS = ["2019-07-04", "2019-08-01"]
OPTIONS = {
    "max_epochs": 2,
    "warm_epochs": 1,
    "validation_sessions": 60,
    "data": {"batch_size": 8, "batches_per_epoch": 3},
    "training": {"averaging": 0.5, "accelerator": "cpu"},
}


def make_model():
    """From torch's generator, as a walk wants it."""
    return small_model(seed=torch.initial_seed())


@pytest.fixture(scope="module")
def source():
    return WindowSource(small_panel(), SPEC)


def test_targets_of_training_and_validation_are_known_by_the_refit(source):
    row = source.panel.row(REFITS[1])
    data = known_by(source, row, 60, {"batch_size": 8})
    for span, first, last in ((data.training, 0, row - 60), (data.validation, row - 59, row)):
        assert span.known_by == last
        rows, _ = source.places(span.entries)
        assert first <= rows.min() <= rows.max() < last
        _, known, until = source.targets(span.entries)
        window = source.gather(span.entries, known_by=span.known_by)
        assert (until[window.target_mask] <= last).all()
        assert (window.target_mask < known).any()  # some long targets reach beyond, and are masked


def test_a_refit_does_not_depend_on_the_state_of_the_process(source):
    row = source.panel.row(REFITS[0])
    models = []
    for state in (0, 123):
        torch.manual_seed(state)
        models.append(refit(make_model, source, row, 7, **OPTIONS))
    assert same_weights(*models)
    assert not same_weights(models[0], refit(make_model, source, row, 8, **OPTIONS))
