"""What goes into a model outside the notebook and what comes out: names, types, axes, units."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from qtorch.errors import ArgumentError


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a program.

    Attributes:
        name: by which it is given or asked for.
        dtype: its element type as torch names it, such as ``"float32"``.
        axes: for each axis its size, or where that varies from call to call the letter that names it: ``"B"`` windows,
            ``"C"`` sessions of context, ``"N"`` assets, ``"K"`` neighbours. One letter has one size in a call.
        meaning: what it holds, its unit, and what a mask's True stands for.
    """

    name: str
    dtype: str
    axes: tuple[int | str, ...]
    meaning: str

    def check(self, value: Tensor, sizes: dict[str, int]) -> None:
        """Refuses a tensor of another type or shape; notes the sizes of the axes that vary.

        Raises:
            ValueError: it is not such a tensor, or an axis has another size than in the tensors before.
        """
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype != self.dtype:
            raise ArgumentError(f"{self.name} is {dtype}, but {self.dtype} is needed.")
        wanted = "[" + ", ".join(map(str, self.axes)) + "]"
        if value.ndim != len(self.axes):
            raise ArgumentError(f"{self.name} has the shape {list(value.shape)}, but {wanted} is needed.")
        for axis, (letter, size) in enumerate(zip(self.axes, value.shape, strict=True)):
            expected = sizes.setdefault(letter, size) if isinstance(letter, str) else letter
            if size != expected or size < 1:
                raise ArgumentError(
                    f"{self.name} has the shape {list(value.shape)}, but {wanted} is needed: axis {axis} must be "
                    f"{'1 or more' if size < 1 else expected}, not {size}."
                )


@dataclass(frozen=True)
class Signature:
    """The tensors of a program, in order.

    Attributes:
        inputs: what it is given.
        outputs: what it gives.

    Example:
        >>> import torch
        >>> signature = Signature((TensorSpec("mask", "bool", ("B", "C"), "True where usable"),), ())
        >>> signature.check([torch.ones(2, 5, dtype=torch.bool)])
        {'B': 2, 'C': 5}
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, values: Sequence[Tensor]) -> dict[str, int]:
        """Refuses inputs of other types or shapes.

        Returns:
            The sizes of the axes that vary.

        Raises:
            ValueError: a tensor is missing, too many, or not as its spec says.
        """
        if len(values) != len(self.inputs):
            names = ", ".join(spec.name for spec in self.inputs)
            raise ArgumentError(f"{len(self.inputs)} tensors are needed ({names}), not {len(values)}.")
        sizes: dict[str, int] = {}
        for spec, value in zip(self.inputs, values, strict=True):
            spec.check(value, sizes)
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            side: [asdict(spec) | {"axes": list(spec.axes)} for spec in getattr(self, side)]
            for side in ("inputs", "outputs")
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Signature":
        """The inverse of `to_dict`, from what JSON keeps of it.

        Raises:
            ValueError: it has other parts, or one of another type.
        """
        sides = ("inputs", "outputs")
        if plain.keys() != set(sides) or not all(isinstance(plain[side], list) and plain[side] for side in sides):
            raise ArgumentError("a signature has lists of inputs and of outputs")
        signature = cls(*(tuple(_spec(each, side) for each in plain[side]) for side in sides))
        for side, specs in zip(sides, (signature.inputs, signature.outputs), strict=True):
            names = [spec.name for spec in specs]
            if len(set(names)) < len(names):
                raise ArgumentError(f"the signature's {side} have a name twice: {', '.join(names)}")
        return signature


def _spec(plain: Any, side: str) -> TensorSpec:
    """A tensor of a signature that need not be true.

    Raises:
        ValueError: a part is missing, unknown or of another type.
    """
    texts = ("name", "dtype", "meaning")
    if not isinstance(plain, dict) or plain.keys() != {*texts, "axes"}:
        raise ArgumentError(f"the signature's {side} have name, dtype, axes and meaning, and not {str(plain)[:80]}")
    if not all(isinstance(plain[part], str) for part in texts) or not isinstance(plain["axes"], list):
        raise ArgumentError(f"the signature's {side} have texts and a list of axes, and not {str(plain)[:80]}")
    if not isinstance(getattr(torch, plain["dtype"], None), torch.dtype):
        raise ArgumentError(f"{plain['name']} in the signature has the dtype {plain['dtype']!r}, which torch has not")
    for axis in plain["axes"]:
        if not (isinstance(axis, str) or (type(axis) is int and axis >= 1)):
            raise ArgumentError(f"an axis of {plain['name']} in the signature is {axis!r}, no letter and no size")
    return TensorSpec(**plain | {"axes": tuple(plain["axes"])})
