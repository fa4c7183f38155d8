"""A saved model that answers requests, several at once."""

import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtorch.data import DataError
from qtorch.deploy.bundle import inspect_bundle, load
from qtorch.deploy.server.allocator_service import AllocatorService
from qtorch.deploy.server.forecaster_service import ForecasterService
from qtorch.deploy.server.protocol import InferRequest, InferResponse, Limits, RequestError
from qtorch.deploy.server.tensor_inputs import DATATYPES, tensors_of
from qtorch.deploy.server.tensor_options import wanted_outputs
from qtorch.deploy.signature import TensorSpec
from qtorch.errors import ArgumentError
from qtorch.training import Allocator, Forecaster

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A request that the model takes.

    Attributes:
        place: in the list of requests.
        request: itself.
        tensors: by name, with B windows, decisions or dates in the first axis.
        options: of the computation.
        names: of the outputs.
    """

    place: int
    request: InferRequest
    tensors: dict[str, Tensor]
    options: Any
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def key(self) -> tuple[Any, ...]:
        """Of those that can be computed together."""
        return tuple((name, *x.shape[1:]) for name, x in self.tensors.items()), self.options, self.names


class ServedModel:
    """A saved forecaster or allocator, whose name and version are the last two parts of its path.

    Safe to be used from several threads.

    Args:
        path: of the bundle, as of `qtorch.deploy.save`.
        allow: packages beside qtorch whose classes and functions it may name.
        limits: what a request may be at most.

    Attributes:
        model: the forecaster or allocator, in evaluation mode.

    Raises:
        BundleError: it cannot be trusted or used.
        ValueError: it has no form of plain tensors, such as an allocator that walks over dendrograms.
    """

    def __init__(self, path: str | Path, allow: Iterable[str] = (), limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.limits = Limits() if limits is None else limits
        self.name, self.version = self.path.parent.name, self.path.name
        description = inspect_bundle(self.path)
        self.sha256, self.versions_of_libraries = description["weights_sha256"], description.get("versions", {})
        self.service: ForecasterService | AllocatorService
        if description.get("kind") == Allocator.__name__:
            allocator, self.saved = load(self.path, Allocator, allow=allow)
            self.service = AllocatorService(allocator)
        else:
            forecaster, self.saved = load(self.path, allow=allow)
            self.service = ForecasterService(forecaster)
        self.model: Forecaster | Allocator = self.service.model
        self.model.requires_grad_(False)

    def metadata(self, versions: Sequence[str] = ()) -> dict[str, Any]:
        """As the protocol tells it: name, versions, platform, inputs, outputs, and parameters.

        The parameters hold what tensors mean (`meanings`, with units and what a mask's True stands for), which inputs
        may be left out, what windows are made of, and what was saved beside the model.

        Args:
            versions: that are ready; its own by default.
        """
        service = self.service
        return {
            "name": self.name,
            "versions": list(versions) or [self.version],
            "platform": "qtorch",
            "inputs": [_metadata(spec) for spec in service.inputs],
            "outputs": [_metadata(spec) for spec in service.outputs],
            "parameters": {
                **service.about,
                "axes": {spec.name: list(spec.axes) for spec in service.inputs},
                "output_axes": {spec.name: list(spec.axes) for spec in service.outputs},
                "meanings": {spec.name: spec.meaning for spec in service.inputs},
                "output_meanings": {spec.name: spec.meaning for spec in service.outputs},
                "optional_inputs": sorted(service.optional),
                "default_outputs": list(service.default),
                "weights_sha256": self.sha256,
                "saved": self.saved,
                "saved_with": self.versions_of_libraries,
            },
        }

    @torch.inference_mode()
    def run(self, requests: Sequence[InferRequest]) -> list[InferResponse | RequestError]:
        """Answers requests together, each as if it were alone; a refusal harms no other.

        Requests of equal shapes, parameters and outputs are computed as one batch. An answer equals that of the request
        alone but for the rounding of float32, since sums are taken in another order: to 1e-6.

        Args:
            requests: of this model, not validated yet.
        """
        answers: dict[int, InferResponse | RequestError] = {}
        groups: dict[Any, list[_Prepared]] = {}
        for place, request in enumerate(requests):
            try:
                prepared = self._prepared(place, request)
            except RequestError as error:
                answers[place] = error
                continue
            groups.setdefault(prepared.key, []).append(prepared)
        for group in groups.values():
            for batch in self._batches(group):
                answers |= self._answers(batch)
        return [answers[place] for place in range(len(requests))]

    def _prepared(self, place: int, request: InferRequest) -> _Prepared:
        service = self.service
        names = wanted_outputs(request, tuple(spec.name for spec in service.outputs), service.default)
        options = service.options(request.parameters)
        tensors, sizes = tensors_of(request.inputs, service.inputs, service.optional, self.limits)
        return _Prepared(place, request, service.prepared(tensors, sizes, self.limits), options, names)

    def _batches(self, group: list[_Prepared]) -> Iterator[list[_Prepared]]:
        """Requests in their order, of `limits.max_batch` windows together at most."""
        batch: list[_Prepared] = []
        for prepared in group:
            if batch and sum(map(len, batch)) + len(prepared) > self.limits.max_batch:
                yield batch
                batch = []
            batch.append(prepared)
        yield batch

    def _answers(self, batch: list[_Prepared]) -> dict[int, InferResponse | RequestError]:
        """The answers by place; where the whole fails each is computed alone, so that one harms no other."""
        try:
            return self._computed(batch)
        except RequestError as error:
            if len(batch) == 1:
                return {batch[0].place: error}
        except (ArgumentError, DataError) as error:
            if len(batch) == 1:
                return {batch[0].place: RequestError(422, str(error))}
        except Exception:
            if len(batch) == 1:
                number = uuid.uuid4().hex[:12]
                logger.exception("model %s version %s failed, error %s", self.name, self.version, number)
                return {batch[0].place: RequestError(500, f"the model failed; the log tells more of error {number}.")}
            logger.exception(
                "model %s version %s failed on a batch; its requests are tried alone", self.name, self.version
            )
        alone: dict[int, InferResponse | RequestError] = {}
        for prepared in batch:
            alone |= self._answers([prepared])
        return alone

    def _computed(self, batch: list[_Prepared]) -> dict[int, InferResponse | RequestError]:
        options, names = batch[0].options, batch[0].names
        tensors = {name: torch.cat([prepared.tensors[name] for prepared in batch]) for name in batch[0].tensors}
        raw = self.service.network(tensors, names)
        sizes = [len(prepared) for prepared in batch]
        good = _finite(raw, sum(sizes))
        fine = [bool(part.all()) for part in good.split(sizes)]
        answers: dict[int, InferResponse | RequestError] = {
            prepared.place: RequestError(
                422,
                f"window {int((~part).nonzero()[0])}: the model's numbers overflow. Its inputs are far beyond what it "
                "was trained on: check their units.",
            )
            for prepared, part in zip(batch, good.split(sizes), strict=True)
            if not part.all()
        }
        batch = [prepared for prepared, whole in zip(batch, fine, strict=True) if whole]
        if not batch:
            return answers
        if answers:
            rows = torch.repeat_interleave(torch.tensor(fine), torch.tensor(sizes))
            raw, tensors = tuple(x[rows] for x in raw), {name: x[rows] for name, x in tensors.items()}
        outputs = self.service.answers(raw, tensors, options, names)
        start = 0
        for prepared in batch:
            stop = start + len(prepared)
            mine = {name: value[start:stop].numpy() for name, value in outputs.items()}
            told = self.service.told(options, names)
            answers[prepared.place] = InferResponse(self.name, self.version, prepared.request.id, told, mine)
            start = stop
        return answers


def _finite(tensors: tuple[Tensor, ...], rows: int) -> Tensor:
    """Which rows hold no NaN and no infinity."""
    good = torch.ones(rows, dtype=torch.bool)
    for tensor in tensors:
        good = good & tensor.flatten(1).isfinite().all(1)
    return good


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1 if isinstance(axis, str) else axis for axis in spec.axes]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}
