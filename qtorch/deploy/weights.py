"""Weights of a saved model: written whole, and read only where they are those that its description names."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor, nn

from qtorch.deploy import pair
from qtorch.errors import ArgumentError

FILE = "weights.safetensors"
SHA256 = "weights_sha256"  # in the description


def write(module: nn.Module, folder: Path, description_of: Callable[[str], tuple[str, str]]) -> None:
    """Writes weights and what is said of them, so that a kill at any moment leaves the old model or the new one.

    Args:
        module: that has the weights.
        folder: for them.
        description_of: gives the description's file name and text for the weights' SHA-256.

    Raises:
        ValueError: a weight is not finite.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    _refuse_non_finite(module, state)
    content = save(state)
    name, text = description_of(hashlib.sha256(content).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    pair.replace(folder / FILE, content, folder / name, text, SHA256)


def content_of(folder: Path, sha256: str, root: Path) -> bytes:
    """The file of the weights, read once: what is loaded are the bytes that were hashed, whoever writes meanwhile.

    So a load needs room for the weights three times: these bytes, their tensors and the model's own.

    Args:
        folder: of the bundle.
        sha256: of the file.
        root: within which it is.

    Raises:
        OSError: there is none, or it can't be read.
        ValueError: it is another.
    """
    content = pair.content_of(folder / FILE, sha256, root)
    if content is not None:
        return content
    raise ArgumentError(f"{folder / FILE}: its SHA-256 is not the one in the description; it was altered or cut short")


def put(module: nn.Module, content: bytes) -> None:
    """Gives a module the weights of a file's content.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or type, or not finite.
        SafetensorError: it is none of safetensors.
    """
    state, wanted = load(content), module.state_dict()
    for what, names in (("lacks", wanted.keys() - state.keys()), ("has unknown", state.keys() - wanted.keys())):
        if names:
            raise ArgumentError(f"{FILE}: it {what} the weights {', '.join(sorted(names)[:5])} ({len(names)} in all)")
    for name, value in state.items():
        has, needs = ((tuple(each.shape), each.dtype) for each in (value, wanted[name]))
        if has != needs:
            raise ArgumentError(f"{FILE}: {name} has the shape and type {has}, but the model {needs}")
    _refuse_non_finite(module, state)
    module.load_state_dict(state)


def _refuse_non_finite(module: nn.Module, state: dict[str, Tensor]) -> None:
    trained = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    bad = [
        name
        for name, value in state.items()
        # A buffer may be infinite, as a bound of a constraint is.
        if value.is_floating_point() and not (value.isfinite() if name in trained else ~value.isnan()).all()
    ]
    if bad:
        raise ArgumentError(
            f"the weights {', '.join(bad[:5])} ({len(bad)} in all) are not finite, and would forecast nothing. Train "
            "the model with a lower learning rate"
        )
