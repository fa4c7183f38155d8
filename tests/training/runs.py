"""Small markets, models and runs for tests of training; importable in other processes."""

import torch
from torch import nn

from qtorch import Forecaster, heads, models
from qtorch.data import DataModule, Panel, PanelWindowSource, WindowSource, WindowSpec
from qtorch.training import Objective
from tests.conftest import make_prices

SPEC = WindowSpec(context=8, horizons=(1, 3))
EXCHANGES = {"AAA": "XNYS", "BBB": "XNYS", "TTT": "XTKS", "EEE": "XECB"}


class Across(nn.Module):
    """A panel-layout encoder: each cell from its own inputs, its own past and the mean of its row; 0 where masked."""

    layout = "panel"
    causal = True

    def __init__(self, in_features: int, width: int = 8) -> None:
        super().__init__()
        self.in_features, self.width = in_features, width
        self.own, self.row = nn.Linear(in_features, width), nn.Linear(in_features, width)

    @property
    def out_features(self) -> int:
        return self.width

    def forward(self, inputs, mask):
        usable = mask.unsqueeze(-1)
        inputs = torch.where(usable, inputs, 0.0)
        past = inputs.cumsum(1) / usable.cumsum(1).clamp(min=1)
        row = inputs.sum(2, keepdim=True) / usable.sum(2, keepdim=True).clamp(min=1)
        return torch.where(usable, torch.tanh(self.own(inputs + past) + self.row(row)), 0.0)


class LastOfAll(Across):
    """The same for a window's last position alone."""

    causal = False

    def forward(self, inputs, mask):
        return super().forward(inputs, mask)[:, -1:]


def small_panel(end: str = "2019-12-30", seed: int = 2) -> Panel:
    return Panel.from_frame(make_prices(EXCHANGES, "2018-01-04", end, seed))


def small_model(seed: int = 0, objective: Objective | None = None, encoder: nn.Module | None = None) -> Forecaster:
    torch.manual_seed(seed)
    if encoder is None:
        encoder = models.Transformer(len(SPEC.features), width=8, depth=1, heads=2, dropout=0.2)
    head = heads.SkewedStudentT(encoder.out_features, SPEC.horizons)
    nn.init.normal_(head.project.weight, std=0.3)
    return Forecaster(encoder, head, SPEC, objective=objective)


def small_data(panel: Panel, layout: str = "asset", **options) -> DataModule:
    source = (WindowSource if layout == "asset" else PanelWindowSource)(panel, SPEC)
    options = {"batches_per_epoch": 3, "batch_size": 8} | options
    return DataModule(panel, source=source, validation_start="2019-07-15", test_start="2019-08-15", **options)


def same_weights(a: Forecaster, b: Forecaster) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())
