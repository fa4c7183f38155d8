"""An artefact that was read: a function of tensors, and forecasts or weights of panels."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from qtorch.data import Panel, WindowSpec
from qtorch.data.rows import Dates
from qtorch.data.sampling import Source
from qtorch.deploy.allocators import built_allocator
from qtorch.deploy.allowed import check_modules
from qtorch.deploy.artefact_file import CPU_ALONE, ArtefactError, content_of, describe_artefact
from qtorch.deploy.artefact_network import ArtefactNetwork, ArtefactViews
from qtorch.deploy.bounded import Bounded
from qtorch.deploy.bundle import built_windows
from qtorch.deploy.signature import Signature
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.nn import build
from qtorch.nn.graph import Graph
from qtorch.training import Allocator, Forecaster
from qtorch.training.forecasting import forecast

Run = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
Made = TypeVar("Made")


class Artefact:
    """A model outside the notebook: what `open_artefact` gives.

    Args:
        run: the function of tensors.
        description: as of `describe_artefact`.
        allow: packages beside qtorch whose classes the description may name.
        size: bytes of its file, by which what its description asks to be made is bounded.

    Attributes:
        signature: of inputs and outputs: names, types, axes, units and the masks' meaning.
        description: what the sidecar says.
        device: on which it runs.
    """

    def __init__(self, run: Run, description: Mapping[str, Any], allow: Iterable[str] = (), size: int = 0) -> None:
        self.description = dict(description)
        self.signature = Signature.from_dict(description["signature"])
        self.device = torch.device(description["device"])
        self._run, self._allow, self._size = run, tuple(allow), size

    @property
    def kind(self) -> str:
        """How it runs, such as ``"onnx"``."""
        kind: str = self.description["kind"]
        return kind

    @property
    def metadata(self) -> dict[str, Any]:
        """What was kept beside the model."""
        metadata: dict[str, Any] = self.description["metadata"]
        return metadata

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the signature's order, on the device of the inputs.

        Raises:
            ValueError: the inputs are not as the signature says, or as of `qtorch.nn.graph.Graph` those of edges.
        """
        self.signature.check(tensors)
        if self.description["model"]["kind"] == Allocator.__name__:
            self._check_edges(dict(zip((spec.name for spec in self.signature.inputs), tensors, strict=True)))
        outputs = self._run(tuple(tensor.detach().to(self.device).contiguous() for tensor in tensors))
        return tuple(output.to(tensors[0].device) for output in outputs)

    def forecast(
        self,
        panel: Panel,
        dates: Dates,
        *,
        min_history: int = 60,
        stale: int = 5,
        batch_size: int = 1024,
        source: Source | None = None,
        head: nn.Module | None = None,
    ) -> Forecast:
        """The forecast that the model gives, as of `Forecaster.forecast`.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            min_history: returns that an asset needs; with fewer it has no forecast.
            stale: after this many sessions of its exchange without a price an asset has no forecast.
            batch_size: windows of one asset evaluated at once.
            source: the panel's windows in either layout, if they have been made already.
            head: the model's own, such as ``deploy.load(path)[0].network.head``, where its law evaluates a network of
                its own, which an artefact does not hold.

        Raises:
            ValueError: it is no forecaster's, gives densities, or needs a head.
            DataError: as of `Forecaster.forecast`.
        """
        model = self._of(Forecaster)
        if model["gives"] != "parameters":
            raise ArgumentError(
                "this artefact gives the density of outcomes, and no law's parameters. Export one without density=True."
            )
        if head is None:
            if not model["law_in_parameters"]:
                name = model["head"]["class_path"].rpartition(".")[2]
                raise ArgumentError(
                    f"the law of this {name} evaluates a network that is not in the artefact. Give the head of its "
                    "bundle: forecast(..., head=deploy.load(path)[0].network.head)."
                )
            head = self._made(lambda: self._head(model["head"]))
        spec = self._spec(model)
        if (has := getattr(head, "horizons", spec.horizons)) != spec.horizons:
            raise ArgumentError(
                f"the head's horizons are {has}, but the artefact's {spec.horizons}. Give its own head."
            )
        network = ArtefactNetwork(self, head, model["layout"], model["causal"]).eval()
        return forecast(network, spec, panel, dates, min_history, stale, batch_size=batch_size, source=source)

    def allocate(
        self, panel: Panel, dates: Dates, holdings: pd.Series | Mapping[str, float] | None = None
    ) -> pd.DataFrame:
        """The weights that the model gives, as of `Allocator.allocate`; its allocation layer is a solver and runs here.

        Raises:
            ValueError: it is no allocator's; and as of `Allocator.allocate`.
            DataError: as of `Allocator.allocate`.
        """
        model = self._of(Allocator)
        spec = self._spec(model)
        allocator = self._made(lambda: built_allocator(model, spec, self._allow))
        allocator.network = ArtefactViews(self, allocator.network, model["kinds"])
        return allocator.allocate(panel, dates, holdings)

    def _check_edges(self, given: Mapping[str, Tensor]) -> None:
        """As the model does in eager mode; a program has no checks, and would look elsewhere in memory."""
        edges = Graph(given["neighbours"], given["present"], given["universe"], given["weights"], given.get("kinds"))
        most = int(self.description["model"]["kinds"])
        if edges.kinds is not None and (wrong := edges.kinds >= most).any():
            b, n, k = wrong.nonzero()[0].tolist()
            raise ArgumentError(f"kinds[{b}, {n}, {k}] is {int(edges.kinds[b, n, k])}, but kinds are 0 to {most - 1}.")

    def _spec(self, model: Mapping[str, Any]) -> WindowSpec:
        return self._made(lambda: built_windows(model["windows"], self._allow))

    def _head(self, plain: dict[str, Any]) -> nn.Module:
        check_modules(plain, self._allow)
        return build(plain, allow=self._allow)

    def _made(self, make: Callable[[], Made]) -> Made:
        """What the description says, which need not be true: within bounds, and without a draw of the user's.

        Raises:
            ArtefactError: it can't be made.
        """
        try:
            with torch.random.fork_rng(devices=[]), Bounded(self._size):
                return make()
        except Exception as error:  # whatever constructors raise for arguments of any kind
            told = str(error).rstrip(".") or type(error).__name__
            raise ArtefactError(f"not a usable description of an artefact ({told}). Export the model anew.") from error

    def _of(self, kind: type) -> dict[str, Any]:
        model: dict[str, Any] = self.description["model"]
        if model.get("kind") != kind.__name__:
            raise ArgumentError(f"this artefact is of kind {model.get('kind')}, and not of a {kind.__name__}.")
        return model

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(f"{spec.name} [{', '.join(map(str, spec.axes))}]" for spec in side)
            for side in (self.signature.inputs, self.signature.outputs)
        )
        return f"Artefact({self.kind} of a {self.description['model'].get('kind')}: {inputs} -> {outputs})"


def open_artefact(
    path: str | Path, *, trust: bool = False, sha256: str | None = None, allow: Iterable[str] = ()
) -> Artefact:
    """Reads an artefact that this room wrote, after its SHA-256 was checked.

    A ``.pt2``, of `export` or `package`, holds code that runs here: load only what you trust. So it must be asked for,
    by `trust` or by the digest that you noted where it was written.

    Args:
        path: of the file; its sidecar is beside it.
        trust: whether a file that holds code may be loaded.
        sha256: of the whole, as `describe_artefact(path)["sha256"]` gave it where it was written.
        allow: packages beside qtorch whose classes the sidecar may name.

    Raises:
        ArtefactError: a file is missing, altered, of another format, or another than `sha256` says; or it holds code
            and neither `trust` nor `sha256` is given; or it was made for a device that is not here.
        ImportError: the extra that runs it is not installed.
    """
    description = describe_artefact(path)
    if sha256 is not None and description["sha256"] != sha256:
        raise ArtefactError(f"{path}: its SHA-256 is {description['sha256']}, not {sha256}, which is asked for.")
    content = content_of(path, description)
    _require_device(Path(path), description)
    try:
        run = _runner(description, content, Path(path), trusted=trust or sha256 is not None)
        return Artefact(run, description, allow, len(content))
    except ArtefactError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: not a usable artefact ({error}). Export the model anew.") from error


def _runner(description: Mapping[str, Any], content: bytes, path: Path, *, trusted: bool) -> Run:
    match description["kind"]:
        case "torch.export":
            _require_trust(path, trusted)
            from qtorch.deploy.exported import runner
        case "aot_inductor":
            _require_trust(path, trusted)
            from qtorch.deploy.packaged import runner
        case "onnx":
            from qtorch.deploy.onnx_model import runner
        case "executorch":
            _require_trust(path, trusted)
            from qtorch.deploy.executorch_program import runner
        case "torchscript":
            _require_trust(path, trusted)
            from qtorch.deploy.torchscript import runner
        case "coreml":
            raise ArtefactError(f"{path}: CoreML's packages run on Apple's devices alone. describe_artefact reads it.")
        case kind:
            raise ArtefactError(f"{path}: an artefact of kind {kind!r}, which this qtorch does not know. Upgrade it.")
    return runner(content, description)


def _require_trust(path: Path, trusted: bool) -> None:
    if not trusted:
        raise ArtefactError(
            f"{path} holds code, which loading it runs. If you trust who wrote it, give trust=True, or better the "
            "digest that they noted: sha256=."
        )


def _require_device(path: Path, description: Mapping[str, Any]) -> None:
    """Refuses what runs on a device that this machine has not."""
    device, kind = description["device"], description["kind"]
    if device != "cpu" and kind in CPU_ALONE:
        raise ArtefactError(f"{path}: of the device {device}, but artefacts of kind {kind} run on the CPU alone.")
    if device != "cpu" and not getattr(torch, device).is_available():
        raise ArtefactError(
            f"{path}: it was made for the device {device}, which is not available here. Take it to a machine that has "
            "one, or write it anew of a model on the CPU."
        )
