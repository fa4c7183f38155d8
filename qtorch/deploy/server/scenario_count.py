"""How many scenarios the levels of a risk request need."""

from qtorch.deploy.server.protocol import RequestError
from qtorch.deploy.server.risk_request import MOST_SCENARIOS, RiskRequest
from qtorch.nightly.forecast_history import TONIGHT

# Scenarios beyond a level in each randomisation. With fewer, the tail's mean is that of a few extremes, and the spread
# of the randomisations tells little of its error.
_BEYOND = 10


def scenario_count(request: RiskRequest) -> int:
    """Scenarios of a randomisation: those asked for, or the fewest from the nightly job's number that tell all levels.

    Args:
        request: with the levels.

    Raises:
        RequestError: 422, those asked for do not, or no number does.
    """
    count = TONIGHT if request.scenarios is None else request.scenarios
    while request.scenarios is None and count < MOST_SCENARIOS and _untold(request, count):
        count *= 2
    require_told(request, count)
    return count


def _untold(request: RiskRequest, count: int) -> list[float]:
    """Levels with too few scenarios beyond them, on the one side or the other."""
    return [level for level in request.levels if min(level, 1 - level) * count < _BEYOND - 1e-6]


def require_told(request: RiskRequest, count: int) -> None:
    """Looks whether scenarios tell every level.

    Args:
        request: with the levels.
        count: scenarios of a randomisation.

    Raises:
        RequestError: 422, they do not.
    """
    for level in _untold(request, count):
        raise RequestError(
            422,
            f"levels: of {count} scenarios {min(level, 1 - level) * count:.3g} are beyond {level}, and {_BEYOND} are "
            f"needed. Give levels less near to 0 and 1, or more scenarios where a copula makes them, up to "
            f"{MOST_SCENARIOS}.",
        )
