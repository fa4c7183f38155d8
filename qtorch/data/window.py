"""What a model sees: the settings of a window, and a batch of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int
from torch import Tensor

from qtorch.data.features import Features
from qtorch.errors import ArgumentError


@dataclass(frozen=True)
class WindowSpec:
    """What a window holds; a model keeps it, so that it is always fed what it was trained on.

    Attributes:
        context: own sessions `C` that a model sees; rows of the panel in panel layout.
        horizons: the `H` horizons of the targets, in the asset's own sessions.
        features: the inputs.
    """

    context: int = 64
    horizons: tuple[int, ...] = (1, 10)
    features: Features = Features()

    def __post_init__(self) -> None:
        """Checks the settings."""
        object.__setattr__(self, "horizons", tuple(self.horizons))
        if self.context < 1:
            raise ArgumentError(f"context must be at least 1 session, not {self.context}.")
        if not self.horizons or min(self.horizons) < 1 or sorted(set(self.horizons)) != list(self.horizons):
            raise ArgumentError(f"horizons must be positive and ascending, not {self.horizons}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        return {"context": self.context, "horizons": list(self.horizons), "features": self.features.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "WindowSpec":
        """The inverse of `to_dict`, from what JSON keeps of it.

        Raises:
            ValueError: a feature is not known.
        """
        return cls(plain["context"], tuple(plain["horizons"]), Features.from_dict(plain["features"]))


@dataclass(frozen=True, eq=False)
class Window:
    """A batch of masked windows, each up to a row of the panel.

    In asset layout a window is the last `C` own sessions of one asset; in panel layout the last `C` rows of all `N`
    assets, and the axes C and B of a shape are followed by N. Masks are True where a value is usable. Starts that are
    too short are padded on the left and masked.

    Attributes:
        inputs: features, 0 where masked.
        mask: which positions hold a session.
        target: simple returns over the horizons (decimals); `[B, H]` from the window's last session, or
            `[B, C, H]` from each of its sessions; `[B, H, N]` in panel layout. 0 where masked.
        target_mask: which targets are known.
        scale: causal volatility of one session, in units of which a model predicts; `[B]`, `[B, C]` or `[B, N]`,
            1 where masked.
        asset_index: column of the panel; -1 in panel layout.
        row_index: row of the panel of the window's last session.
    """

    inputs: Float32[Tensor, "B C *N F"]
    mask: Bool[Tensor, "B C *N"]
    target: Float32[Tensor, "B ..."]
    target_mask: Bool[Tensor, "B ..."]
    scale: Float32[Tensor, "B ..."]
    asset_index: Int[Tensor, " B"]
    row_index: Int[Tensor, " B"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Window":
        """The window on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Window":
        """The window in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def jagged(self) -> Tensor:
        """The inputs without the padding on the left, as a jagged tensor `[B, j, F]` of torch.nested.

        For layers that take jagged tensors (`torch.nn.functional.scaled_dot_product_attention` does): no arithmetic is
        spent on padding. Masked sessions after the first usable one stay, as zeros.

        Raises:
            ValueError: the window is in panel layout.
        """
        if self.inputs.ndim != 3:
            raise ArgumentError("only windows in asset layout have jagged inputs.")
        C = self.mask.shape[1]
        first = torch.where(self.mask.any(1), self.mask.int().argmax(1), C - 1)
        kept = torch.arange(C, device=first.device) >= first[:, None]
        offsets = torch.cat([first.new_zeros(1), (C - first).cumsum(0)])
        return torch.nested.nested_tensor_from_jagged(self.inputs[kept], offsets, max_seqlen=C)

    def __len__(self) -> int:
        """The number of windows `B`."""
        return len(self.row_index)

    def split(self, batch_size: int) -> Iterator["Window"]:
        """The windows in batches, which share the memory of this one."""
        tensors = [getattr(self, field.name) for field in fields(self)]
        whole, rest = divmod(len(self), batch_size)
        if rest:
            return map(Window, *(tensor.split(batch_size) for tensor in tensors))
        return map(Window, *(tensor.unflatten(0, (whole, batch_size)).unbind() for tensor in tensors))

    @classmethod
    def joined(cls, windows: Sequence["Window"]) -> "Window":
        """Several batches as one."""
        return cls(*(torch.cat([getattr(window, field.name) for window in windows]) for field in fields(cls)))

    def __repr__(self) -> str:
        from qtorch.data.card import window_facts

        facts = ", ".join(f"{name} {value}" for name, value in window_facts(self).items())
        return f"Window({facts})"

    def _repr_html_(self) -> str:
        from qtorch.data.card import window_card

        return window_card(self)

    def _map(self, function) -> "Window":  # type: ignore[no-untyped-def]
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})
