"""A request, as the log and the metrics tell of it."""

import time
from dataclasses import dataclass, field


@dataclass
class Call:
    """A request, as the log and the metrics tell of it.

    Attributes:
        id: of the sender, or a new one.
        protocol: http or grpc.
        method: of HTTP; POST for gRPC.
        path: without a query.
        endpoint: what was asked for, such as infer.
        model: name, if any.
        version: that answered, or was asked for.
        bytes_in: of the request.
        bytes_out: of the response.
        windows: of the batch it was computed in.
    """

    id: str
    protocol: str
    method: str
    path: str
    endpoint: str = "unknown"
    model: str = ""
    version: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    windows: int = 0
    began: float = field(default_factory=time.perf_counter)
