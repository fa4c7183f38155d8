"""Small markets of three exchanges, with holes, a late and a delisted asset; importable by the command line."""

from qtorch.data import Panel
from qtorch.data.synthetic import Absences, SyntheticMarket


def market(seed: int = 0, end: str = "2019-08-30") -> Panel:
    absences = Absences(late=0.0, early=0.3, halts=0.01, faults=0.03)
    exchanges = {"XNYS": 2, "XTKS": 2, "XLON": 1}
    frame = SyntheticMarket(exchanges, "2019-01-02", end, absences=absences, seed=seed).simulate().frame
    late = (frame["asset"] == "XTKS-0001") & (frame["date"] < "2019-04-15")
    return Panel.from_frame(frame[~late])


def momentum(panel: Panel):
    return panel.returns().nan_to_num().cumsum(0)


def rank_in_sample(panel: Panel):
    return panel.to_wide("return", by="row").rank(pct=True)


def broken(panel: Panel):
    raise KeyError("no such column")


def constant(panel: Panel):
    import torch

    return torch.ones(panel.state.shape)


def leaves(panel: Panel):
    raise SystemExit(1)


class Unreadable:
    def forecast(self, panel: Panel, dates):
        raise NotImplementedError

    @property
    def min_history(self) -> int:
        raise RuntimeError("no history")


unreadable = Unreadable()


def random(panel: Panel):
    import torch

    return torch.randn(len(panel.dates))
