"""Repositories of the Hugging Face Hub. Needs huggingface_hub: ``pip install 'qtorch-finance[hub]'``."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, overload

from qtorch.deploy import weights
from qtorch.deploy.bundle import Model, load_within, save
from qtorch.deploy.card import model_card
from qtorch.deploy.description import FILE, BundleError
from qtorch.errors import ArgumentError
from qtorch.training import Allocator, Forecaster

CARD = "README.md"


def save_pretrained(
    model: Forecaster | Allocator,
    folder: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
) -> None:
    """Writes what a repository of the Hub holds: the bundle of `qtorch.deploy.save`, and its card as ``README.md``.

    A card that is there already is written anew, as it would tell of another model.

    Args:
        model: a trained model.
        folder: made if needed.
        metadata: as of `qtorch.deploy.save`.
        metrics: as of `qtorch.deploy.save`; they stand in the card.
        license: as of `qtorch.deploy.model_card`.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: as of `qtorch.deploy.save`.

    Example:
        >>> save_pretrained(model, "out/risk", metrics={"test_crps": 0.51})  # doctest: +SKIP
    """
    _wrapper()(model, metadata, metrics, license).save_pretrained(Path(folder))


def push(
    model: Forecaster | Allocator,
    repository: str,
    metadata: Mapping[str, Any] | None = None,
    *,
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Save a qtorch model",
) -> str:
    """Writes a model to a repository of the Hub, which is made if needed.

    Args:
        model: a trained model.
        repository: such as ``"desk/risk"``.
        metadata: as of `qtorch.deploy.save`.
        metrics: as of `save_pretrained`.
        license: as of `save_pretrained`.
        token: of an account that may write there; None takes that of ``hf auth login``.
        private: whether a new repository is; None is as the account says.
        revision: a branch; None is the main one.
        message: of the commit.

    Returns:
        The address of the commit, whose hash is a `revision` for `from_pretrained`.

    Raises:
        ImportError: huggingface_hub is not installed.
        ValueError: as of `save_pretrained`.

    Example:
        >>> push(model, "desk/risk", license="apache-2.0", private=True)  # doctest: +SKIP
    """
    wrapped = _wrapper()(model, metadata, metrics, license, repository)
    address: str = wrapped.push_to_hub(
        repository, token=token, private=private, branch=revision, commit_message=message
    )
    return str(address)


@overload
def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    allow: Iterable[str] = (),
    sha256: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Forecaster, dict[str, Any]]: ...


@overload
def from_pretrained(
    name: str | Path,
    kind: type[Model],
    *,
    revision: str | None = None,
    allow: Iterable[str] = (),
    sha256: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Model, dict[str, Any]]: ...


def from_pretrained(
    name: str | Path,
    kind: Any = Forecaster,
    *,
    revision: str | None = None,
    allow: Iterable[str] = (),
    sha256: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Reads a model from a repository of the Hub, or from a folder of that form, by the checks of `qtorch.deploy.load`.

    Only the bundle's two files are fetched; what else a repository holds, such as pickled weights or code, is neither
    fetched nor looked at.

    Args:
        name: a folder, or a repository such as ``"desk/risk"``.
        kind: what is wanted, `Forecaster` or `Allocator`.
        revision: a branch, a tag or a commit; a commit's hash is the one that never changes.
        allow: as of `qtorch.deploy.load`.
        sha256: as of `qtorch.deploy.load`; with it, that model is loaded and no other.
        token: of an account that may read there.
        cache_dir: for what is fetched.
        local_files_only: take what was fetched before.

    Returns:
        The model in evaluation mode, and the metadata saved beside it.

    Raises:
        ImportError: huggingface_hub is not installed.
        BundleError: as of `qtorch.deploy.load`, or the repository can't be fetched.

    Example:
        >>> model, metadata = from_pretrained("desk/risk", revision="0a1b2c3", sha256="...")  # doctest: +SKIP
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise ArgumentError(f"revision={revision!r}: {folder} is a folder, which has none. Leave it out.")
        return load_within(folder, kind, allow=allow, sha256=sha256)
    library = _library()
    try:
        folder = Path(
            library.snapshot_download(
                str(name),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=[FILE, weights.FILE],
            )
        )
    except (OSError, ValueError) as error:  # as the library's own are
        raise BundleError(
            f"{name}: neither a folder here nor a repository that can be fetched ({error}). Look at its name, your "
            "token and the network."
        ) from error
    # Of the cache: snapshots/<commit>/ has links to files in blobs/.
    return load_within(folder, kind, allow=allow, sha256=sha256, root=folder.parent.parent)


def _library() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError("qtorch.deploy.hub needs huggingface_hub: pip install 'qtorch-finance[hub]'.") from error


@cache
def _wrapper() -> type[Any]:
    """The mixin around a model; made when it is needed, so that nothing else imports huggingface_hub."""
    mixin: Any = _library().PyTorchModelHubMixin

    class HubModel(mixin, library_name="qtorch"):  # type: ignore[call-arg]
        """A model with what is saved beside it, in the Hub's format.

        `save_pretrained` and `push_to_hub` are the mixin's. Its `from_pretrained`, which reads ``config.json`` and may
        unpickle weights, is not used and refused.
        """

        def __init__(
            self,
            model: Forecaster | Allocator,
            metadata: Mapping[str, Any] | None,
            metrics: Mapping[str, float] | None,
            license: str | None,
            repository: str | None = None,
        ) -> None:
            self.model, self.metadata, self.metrics = model, metadata, metrics
            self.license, self.repository = license, repository
            self._hub_mixin_config = None  # else the mixin writes these arguments to config.json

        def _save_pretrained(self, save_directory: Path) -> None:
            save(self.model, save_directory, self.metadata, metrics=self.metrics)
            card = model_card(save_directory, license=self.license, repository=self.repository)
            (save_directory / CARD).write_text(card, encoding="utf-8")

        @classmethod
        def from_pretrained(cls, *args: Any, **options: Any) -> Any:
            """Refused.

            Raises:
                TypeError: always.
            """
            raise TypeError("read models by qtorch.deploy.hub.from_pretrained, which checks them.")

    return HubModel
