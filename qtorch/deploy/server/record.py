"""Every request in the log and the metrics, with its errors and faults."""

import asyncio
import time
import traceback
import uuid
from collections.abc import Awaitable
from typing import Any, TypeVar

from qtorch.deploy.server.calls import Call
from qtorch.deploy.server.catalogue import Catalogue
from qtorch.deploy.server.logs import Log
from qtorch.deploy.server.metrics import Metrics
from qtorch.deploy.server.protocol import RequestError

T = TypeVar("T")


class Record:
    """Logs and counts requests.

    Args:
        log: of requests and faults.
        metrics: of requests.
        catalogue: of the models that there are.

    Attributes:
        in_flight: requests that are not answered yet.
    """

    def __init__(self, log: Log, metrics: Metrics, catalogue: Catalogue) -> None:
        self.log, self.metrics, self.catalogue = log, metrics, catalogue
        self.in_flight = 0

    async def answered(self, call: Call, work: Awaitable[T]) -> T | RequestError:
        """What the work gives or is refused with, once it is logged and counted; a fault is 500 with its number.

        Args:
            call: what is logged; the work completes it.
            work: of the request.
        """
        self.in_flight += 1
        result: T | RequestError
        try:
            result = await work
        except RequestError as error:
            result = error
        except asyncio.CancelledError:
            self.told(call, 499, "the sender went away")
            raise
        except Exception as error:  # noqa: BLE001  the log has it, the sender its number
            result = self.fault(error, call.id)
        finally:
            self.in_flight -= 1
        if isinstance(result, RequestError):
            self.told(call, result.status, result.message)
        else:
            self.told(call, 200, "")
        return result

    def fault(self, error: BaseException, id: str = "") -> RequestError:
        """Writes a fault into the log, and gives what its sender is told.

        Args:
            error: that was no refusal.
            id: of the request, if there is one.
        """
        number = uuid.uuid4().hex[:12]
        text = "".join(traceback.format_exception(error))
        self.log("fault", id=id, error_id=number, traceback=text[-1900:])
        return RequestError(500, f"an internal error, which the server's log tells of under {number}.")

    def told(self, call: Call, status: int, error: str) -> None:
        """Logs and counts a request.

        Args:
            call: that was answered.
            status: of HTTP.
            error: what it was refused with; "" if it was not.
        """
        seconds = time.perf_counter() - call.began
        label = self.catalogue.label(call.model)
        version = call.version if (call.model, call.version) in self.catalogue.known else ""
        self.metrics.answered(call.protocol, call.endpoint, label, version, str(status), seconds)
        facts: dict[str, Any] = {"model": call.model, "version": call.version, "windows": call.windows, "error": error}
        self.log(
            "request",
            id=call.id,
            protocol=call.protocol,
            method=call.method,
            path=call.path[:200],
            status=status,
            ms=round(1e3 * seconds, 2),
            bytes_in=call.bytes_in,
            bytes_out=call.bytes_out,
            **{name: value for name, value in facts.items() if value},
        )
