"""What is asked of the risk endpoint; needs no torch."""

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from qtorch.deploy.server.protocol import Limits, RequestError, checked_name, checked_version
from qtorch.deploy.server.protocol.bodies import decompressed, json_object
from qtorch.deploy.server.protocol.tensors import shown
from qtorch.deploy.server.tensor_options import levels_of

MOST_SCENARIOS = 1 << 16
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True)
class RiskRequest:
    """A portfolio, and what is to be known of it.

    Attributes:
        model: name.
        version: None is the model's default.
        positions: exposures by asset, in the unit.
        as_of: the date that knows the world; None is the panel's last.
        horizon: in sessions.
        levels: confidences of value at risk and expected shortfall.
        scenarios: of each of 8 randomisations of a copula, a power of 2; None is as many as the levels need.
        seed: of these.
        unit: of the exposures: money, or weights of the portfolio.
        without_forecast: whether an asset without a forecast refuses the request, or is left out and reported.
    """

    model: str
    version: str | None
    positions: dict[str, float]
    as_of: datetime.date | None = None
    horizon: int = 1
    levels: tuple[float, ...] = (0.975, 0.99)
    scenarios: int | None = None
    seed: int = 0
    unit: Literal["value", "weight"] = "value"
    without_forecast: Literal["refuse", "report"] = "refuse"


_KEYS = tuple(field.name for field in fields(RiskRequest))


def parse_risk(body: bytes, headers: Mapping[str, str], model: str, version: str | None, limits: Limits) -> RiskRequest:
    """The request of a JSON body; arguments as of `parse_infer`.

    The body is an object of `RiskRequest`'s attributes, of which only `positions` is due: an object of numbers by
    asset, or a list of objects with asset and value. `as_of` is text, YYYY-MM-DD and nothing else.

    Raises:
        RequestError: 400 it is malformed, 404 the name can be no model's, 413 it is too large, 415 its encoding is not
            known, 422 a level is none.
    """
    name, wanted = checked_name(model), checked_version(version)
    given = json_object(decompressed(body, headers, limits))
    if unknown := [key for key in given if key not in _KEYS]:
        raise RequestError(400, f"{shown(unknown[0])} is not known. A risk request has {', '.join(_KEYS)}.")
    for key, path in (("model", name), ("version", wanted)):
        if given.get(key) not in (None, path):
            raise RequestError(400, f"{key} is {shown(given[key])}, but the path names {shown(path)}. Leave one out.")
    scenarios = given.get("scenarios")
    if scenarios is not None:
        scenarios = _whole(given, "scenarios", 0, 128, MOST_SCENARIOS)
        if scenarios & (scenarios - 1):
            raise RequestError(400, f"scenarios is {scenarios}. Give a power of 2, such as 1024.")
    return RiskRequest(
        name,
        wanted,
        _positions(given.get("positions")),
        _day(given.get("as_of")),
        _whole(given, "horizon", 1, 1, 10_000),
        levels_of(given),
        scenarios,
        _whole(given, "seed", 0, 0, 2**31 - 1),
        "value" if _one_of(given, "unit", "value", "weight") else "weight",
        "refuse" if _one_of(given, "without_forecast", "refuse", "report") else "report",
    )


def _day(given: Any) -> datetime.date | None:
    """A date of its one form; what may be read in two ways is no date."""
    if given is None:
        return None
    if isinstance(given, str) and _DAY.fullmatch(given):
        try:
            return datetime.date.fromisoformat(given)
        except ValueError as error:
            raise RequestError(400, f"as_of is {shown(given)}: {error}. Give a date such as 2024-05-03.") from error
    raise RequestError(400, f"as_of is {shown(given)}. Give a date such as 2024-05-03.")


def _positions(given: Any) -> dict[str, float]:
    if isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list):
        for i, part in enumerate(given):
            if not isinstance(part, dict) or set(part) != {"asset", "value"} or not isinstance(part["asset"], str):
                raise RequestError(400, f"positions[{i}] is {shown(part)}. Give an object with asset and value.")
        pairs = [(part["asset"], part["value"]) for part in given]
    else:
        raise RequestError(400, f"positions is {shown(given)}. Give an object of values by asset.")
    if not pairs:
        raise RequestError(400, "positions is empty. Give at least one.")
    positions: dict[str, float] = {}
    for asset, value in pairs:
        if asset in positions:
            raise RequestError(400, f"positions: {shown(asset)} is there twice. Give the sum once.")
        # Whole numbers may be beyond every float.
        number = type(value) in (int, float) and abs(value) <= 1e30
        if not number or not math.isfinite(value):
            raise RequestError(400, f"positions: {shown(asset)} is {shown(value)}. Give a finite number, up to 1e30.")
        positions[asset] = float(value)
    return positions


def _whole(given: dict[str, Any], key: str, default: int, low: int, high: int) -> int:
    found = given.get(key, default)
    if type(found) is not int or not low <= found <= high:
        raise RequestError(400, f"{key} is {shown(found)}. Give a whole number from {low} to {high}.")
    return found


def _one_of(given: dict[str, Any], key: str, first: str, second: str) -> bool:
    """Whether it is the first, which is the default, and not the second."""
    found = given.get(key, first)
    if found not in (first, second):
        raise RequestError(400, f"{key} is {shown(found)}. Give {first} or {second}.")
    return bool(found == first)
