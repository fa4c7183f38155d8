"""Gates of tonight's data that do not refuse them: stale prices, jumps, and a changed universe."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float64

from qtorch.data import Panel, State
from qtorch.data.errors import listing
from qtorch.nightly.alarms import Reading
from qtorch.nightly.gate_config import GatesConfig, JumpGate, StaleGate, UniverseGate
from qtorch.nightly.store import PREFIX, history

RETURNS = 60  # before tonight's, whose root mean square is the volatility
LEAST = 20  # of them, without which an asset has none
BLOCK = 512  # assets at once


def read_gates(
    config: GatesConfig, panel: Panel, due: Collection[str], before: Collection[str] | None
) -> list[Reading]:
    """What the gates that are not off measure tonight.

    Args:
        config: of the gates.
        panel: up to tonight.
        due: assets of the universe.
        before: those of the night before, as of `last_universe`; None where there was none.
    """
    readings = []
    if config.stale.action != "off":
        readings.append(stale_prices(config.stale, panel))
    if config.jumps.action != "off":
        readings.append(jumps(config.jumps, panel))
    if config.universe.action != "off":
        readings.append(universe_change(config.universe, due, before))
    return readings


def stale_prices(gate: StaleGate, panel: Panel) -> Reading:
    """How many of the assets with a price tonight have had the same close for some sessions of their own."""
    found = []
    for n in range(0, len(panel.assets), BLOCK):
        close = last_of(panel, slice(n, n + BLOCK), gate.sessions + 1)
        found.append((close[1:] == close[:-1]).all(0))
    return _of_observed("stale", gate, panel, torch.cat(found), f"the same close for {gate.sessions} sessions")


def jumps(gate: JumpGate, panel: Panel) -> Reading:
    """How many of the assets with a price tonight moved beyond belief."""
    found, words = [], []
    if gate.volatilities is not None:
        words.append(f"{gate.volatilities:g} volatilities")
    if gate.move is not None:
        words.append(f"{gate.move:.0%}")
    for n in range(0, len(panel.assets), BLOCK):
        close = last_of(panel, slice(n, n + BLOCK), RETURNS + 2)
        returns = close[1:] / close[:-1] - 1
        tonight, past = returns[-1].abs(), returns[:-1]
        volatility = past.square().nanmean(0).sqrt()
        volatility = torch.where(past.isfinite().sum(0) >= LEAST, volatility, torch.inf)
        beyond = torch.zeros_like(tonight, dtype=torch.bool)
        if gate.volatilities is not None:
            beyond |= tonight > gate.volatilities * volatility
        if gate.move is not None:
            beyond |= tonight > gate.move
        found.append(beyond)
    return _of_observed("jumps", gate, panel, torch.cat(found), f"a move beyond {' or '.join(words) or 'nothing'}")


def universe_change(gate: UniverseGate, due: Collection[str], before: Collection[str] | None) -> Reading:
    """How many assets came or left since the last night."""
    if not before:
        return Reading("data", "universe", gate.action, False, "no earlier night to compare with", {})
    came, left = sorted(set(due) - set(before)), sorted(set(before) - set(due))
    share = (len(came) + len(left)) / len(before)
    words = f"{len(came)} assets came{_named(came)} and {len(left)} left{_named(left)}, {share:.1%} of {len(before)}"
    return Reading(
        "data",
        "universe",
        gate.action,
        share > gate.share,
        f"{words}; the limit is {gate.share:.1%}",
        {"share": share, "came": len(came), "left": len(left), "limit": gate.share},
    )


def last_universe(output: str | Path, date: pd.Timestamp) -> list[str] | None:
    """The assets of the last night in an output folder before a date; None where there is none."""
    names = (folder.name for folder in Path(output).glob(f"{PREFIX}*") if (folder / "manifest.json").exists())
    last = max((name for name in names if name < f"{PREFIX}{date:%Y-%m-%d}"), default=None)
    if last is None:
        return None
    day = last.removeprefix(PREFIX)
    return sorted(set(history(output, since=day, until=day).forecasts.to_pandas(columns=["asset"])["asset"]))


def last_of(panel: Panel, columns: slice, count: int) -> Float64[torch.Tensor, "C N"]:
    """The last closes of some assets, on sessions of their own that have a price, the newest last.

    NaN where there are not so many in the panel's last ``4 * count + 20`` rows, which bounds what is looked at.
    """
    rows = 4 * count + 20
    mask = (panel.state[-rows:, columns] == State.OBSERVED).cpu()
    close = panel.values[-rows:, columns, panel.fields.index("close")].cpu()
    place = count - mask.flip(0).cumsum(0).flip(0)  # the last price at count - 1
    row, asset = torch.nonzero(mask & (place >= 0), as_tuple=True)
    out = torch.full((count, mask.shape[1]), torch.nan, dtype=torch.float64)
    out[place[row, asset], asset] = close[row, asset]
    return out


def _of_observed(
    name: str, gate: StaleGate | JumpGate, panel: Panel, counted: Bool[torch.Tensor, " N"], what: str
) -> Reading:
    there = panel.mask[-1].cpu()
    counted = counted.cpu() & there
    total = int(there.sum())
    share = int(counted.sum()) / total if total else 0.0
    assets = [panel.assets[n] for n in torch.nonzero(counted)[:, 0].tolist()]
    return Reading(
        "data",
        name,
        gate.action,
        share > gate.share,
        f"{len(assets)} of {total} assets with a price{_named(assets)} have {what}, {share:.1%}; the limit is "
        f"{gate.share:.1%}",
        {"share": share, "assets": len(assets), "limit": gate.share},
    )


def _named(assets: list[str]) -> str:
    return f" ({listing(assets)})" if assets else ""
