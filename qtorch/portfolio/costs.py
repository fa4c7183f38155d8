"""What trading and financing a portfolio costs."""

from dataclasses import dataclass, fields

from qtorch.distributions.checks import require


@dataclass(frozen=True)
class Costs:
    """Rates of costs; all zero by default.

    Attributes:
        proportional: of the traded value, one way: 0.001 is 10 basis points.
        impact: coefficient Y of the square-root law: a trade of q pays Y sigma sqrt(q / ADV) of its value, where sigma
            is the asset's volatility a session, and q and the average daily value traded are in units of the equity.
        cash: interest a session, that is a row of the panel, on equity that is not in positions, 1 - costs - sum |w|
            where that is positive.
        financing: interest a session, as of cash, on the gross exposure beyond it, where that is negative.

    References:
        Almgren, Thum, Hauptmann and Li (2005), Direct estimation of equity market impact, Risk 18.
    """

    proportional: float = 0.0
    impact: float = 0.0
    cash: float = 0.0
    financing: float = 0.0

    def __post_init__(self) -> None:
        """Checks the rates.

        Raises:
            ValueError: one other than that of cash is negative.
        """
        for part in fields(self):
            rate = getattr(self, part.name)
            require(part.name == "cash" or rate >= 0, part.name, rate, "a rate of at least 0 is needed")
