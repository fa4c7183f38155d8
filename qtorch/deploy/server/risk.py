"""A portfolio's risk with contributions, by a served forecaster and a file of prices."""

from typing import Any

from qtorch.deploy.server.repository import Repository
from qtorch.deploy.server.risk_request import RiskRequest
from qtorch.nightly.config import NightlyData


class RiskService:
    """Answers risk requests; safe to be used from several threads.

    Args:
        data: the prices and what is asked of them, as of the nightly job.
        repository: of the models.
    """

    def __init__(self, data: NightlyData, repository: Repository) -> None:
        self.data, self.repository = data, repository

    def answer(self, request: RiskRequest) -> dict[str, Any]:
        """The risk, in plain values for JSON.

        Raises:
            RequestError: 4xx, the portfolio, date or horizon is not one of the data or model; 503 the model is not
                ready or the prices cannot be read.
        """
        raise NotImplementedError
