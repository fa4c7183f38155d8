"""What is asked of the risk endpoint; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qtorch.deploy.server.protocol import Limits


@dataclass(frozen=True)
class RiskRequest:
    """A portfolio, and what is to be known of it.

    Attributes:
        model: name.
        version: None is the model's default.
        positions: exposures by asset, in the unit.
        as_of: the date that knows the world, YYYY-MM-DD; None is the panel's last.
        horizon: in sessions.
        levels: confidences of value at risk and expected shortfall.
        scenarios: joint ones of each of 8 randomisations; a power of 2.
        seed: of these.
        unit: of the exposures: money, or weights of the portfolio.
        without_forecast: whether an asset without a forecast refuses the request, or is left out and reported.
    """

    model: str
    version: str | None
    positions: dict[str, float]
    as_of: str | None = None
    horizon: int = 1
    levels: tuple[float, ...] = (0.975, 0.99)
    scenarios: int = 1024
    seed: int = 0
    unit: Literal["value", "weight"] = "value"
    without_forecast: Literal["refuse", "report"] = "refuse"


def parse_risk(body: bytes, headers: Mapping[str, str], model: str, version: str | None, limits: Limits) -> RiskRequest:
    """The request of a JSON body; arguments as of `parse_infer`.

    Raises:
        RequestError: 4xx, it is malformed.
    """
    raise NotImplementedError
