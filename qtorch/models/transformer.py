"""A causal masked transformer over an asset's own sessions."""

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn import Block, days_since_start, noisy, rotary_angles, take, usable_first


class SessionCache(NamedTuple):
    """What `TemporalTransformer.step` keeps of the sessions that it has seen, `M` of them, as plain tensors.

    Attributes:
        keys: of every block, not rotated; `[depth, B, heads, M, D / heads]`.
        values: of the same shape.
        position: days or sessions from the last usable session seen, 0 or negative; `[B, M]`.
        usable: which are sessions; `[B, M]`.
        recent: inputs of the last `patch - 1` usable sessions, and ones beside them; `[B, patch - 1, F + 1]`.
    """

    keys: Tensor
    values: Tensor
    position: Tensor
    usable: Tensor
    recent: Tensor


class TemporalTransformer(nn.Module):
    """Encodes each session of a window from itself and the usable sessions before it, pooled over all assets.

    Masked positions influence nothing, whatever they hold (NaN too); their own output is 0. A window padded further
    on the left gives the same output, because positions enter by their distances alone.

    Usable sessions are moved to the front of the window first, so that attention needs no mask but its causality.

    Args:
        in_features: inputs `F`.
        width: hidden width `D`.
        depth: blocks.
        heads: attention heads, which divide the width into even parts.
        expansion: feed-forward width over `D`.
        dropout: probability, in training, inside the feed-forward layers and where `drop_weights` says.
        input_noise: standard deviation of Gaussian noise added to the inputs in training. Inputs that all assets of
            a date share tell the date, and a model without it learns what came next by heart.
        gap_input: the input that holds the log of the calendar days since the previous close (``gap_days`` of
            `qtorch.data.features.GapDays`); distances are then in days, so that a weekend is longer than a night. None
            counts sessions.
        patch: a session enters together with the `patch - 1` usable ones before it, by one linear map. Every position
            has a patch of its own, so there are as many as without, and training on every position stays possible.
        context: usable sessions, itself included, to which a position attends; None is all of the window. A bound
            keeps the cache of `step` small.
        drop_weights: dropout of attention weights, as of `qtorch.nn.Block`. Without, what attention and feed-forward
            layers add is dropped out instead, and training on long windows is several times faster on CPUs.

    Raises:
        ValueError: the heads do not divide the width into even parts, or an argument is out of bounds.

    References:
        Vaswani et al. (2017); Su et al. (2021) for the positions; Beltagy et al. (2020), Longformer, section 3.1, for
        attention with a bounded context.
    """

    layout: ClassVar[str] = "asset"
    causal: ClassVar[bool] = True

    def __init__(
        self,
        in_features: int,
        width: int = 48,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        dropout: float = 0.1,
        input_noise: float = 0.3,
        gap_input: int | None = None,
        patch: int = 1,
        context: int | None = None,
        drop_weights: bool = True,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ArgumentError(f"width {width} must be a multiple of twice the heads, {heads}.")
        if gap_input is not None and not 0 <= gap_input < in_features:
            raise ArgumentError(f"gap_input {gap_input} must be one of the inputs 0 to {in_features - 1}, or None.")
        if patch < 1 or (context is not None and context < 1):
            raise ArgumentError(f"patch and context must be at least 1 session, not {patch} and {context}.")
        self.in_features, self.width, self.depth = in_features, width, depth
        self.heads, self.expansion, self.dropout, self.input_noise = heads, expansion, dropout, input_noise
        self.gap_input, self.patch, self.context, self.drop_weights = gap_input, patch, context, drop_weights
        # Of a patch each session brings its inputs and a one, by which the map tells a session of zeros from none.
        self.embed = nn.Linear(in_features if patch == 1 else patch * (in_features + 1), width)
        self.blocks = nn.ModuleList(Block(width, heads, expansion, dropout, drop_weights) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    @property
    def out_features(self) -> int:
        """The hidden width `D`."""
        return self.width

    def forward(self, inputs: Float[Tensor, "B C F"], mask: Bool[Tensor, "B C"]) -> Float[Tensor, "B C D"]:
        """Hidden states of every position, 0 where masked."""
        C = mask.shape[1]
        inputs, usable, place = _compact(inputs, mask)
        if self.gap_input is None:
            position = torch.arange(C, device=mask.device, dtype=torch.float32)
        else:
            position = days_since_start(inputs, usable, self.gap_input)
        angles = rotary_angles(position, self.width // self.heads)
        hidden = self._embed(self._with_ones(noisy(inputs, self.input_noise, self.training), usable))
        # A graph is for windows of any length; without one those within the bound are left to the faster causal kernel.
        allowed = None
        if self.context is not None and (self.context < C or torch.compiler.is_compiling()):
            allowed = _band(C, self.context, mask.device)
        for block in self.blocks:
            hidden = block(hidden, allowed, angles=angles, causal=allowed is None)
        return torch.where(mask.unsqueeze(-1), take(self.norm(hidden), place), 0.0)

    def step(
        self, inputs: Float[Tensor, "B k F"], mask: Bool[Tensor, "B k"], cache: SessionCache | None = None
    ) -> tuple[Float[Tensor, "B k D"], SessionCache]:
        """Hidden states of new sessions, and what is needed for the next: a nightly update costs one session, not `C`.

        In evaluation mode, session after session or several at once, this gives what `forward` gives for all sessions
        since the cache was begun in one window. With a `context` the cache has that many sessions and the equality
        holds for ever, with a `forward` over the whole past: its deeper blocks know of sessions older than the
        context, by way of the younger ones that have seen them. A window of the last sessions alone is another
        question, with a slightly different answer. Without a `context` the cache grows with each session.

        Args:
            inputs: of the new sessions, oldest first.
            mask: which of them are usable; a masked one leaves the cache as it is.
            cache: what the last call returned; None before the first session.
        """
        if cache is None:
            cache = self._empty(inputs)
        inputs, usable, place = _compact(inputs, mask)
        days = usable.float().cumsum(1) if self.gap_input is None else days_since_start(inputs, usable, self.gap_input)
        position = torch.cat([cache.position, days], 1)
        known = torch.cat([cache.usable, usable], 1)
        angles = rotary_angles(position, self.width // self.heads)
        allowed = _seen(known, usable.shape[1], self.context)
        patches = torch.cat([cache.recent, self._with_ones(inputs, usable)], 1)
        hidden = self._embed(patches, before=self.patch - 1)
        keys, values = [], []
        for block, old_keys, old_values in zip(self.blocks, cache.keys, cache.values, strict=True):
            hidden, k, v = block.extend(hidden, old_keys, old_values, angles, allowed)  # type: ignore[operator]
            keys.append(k)
            values.append(v)
        hidden = torch.where(mask.unsqueeze(-1), take(self.norm(hidden), place), 0.0)
        last = usable.sum(1, keepdim=True) + torch.arange(self.patch - 1, device=mask.device)
        cache = SessionCache(
            torch.stack(keys), torch.stack(values), position - days[:, -1:], known, take(patches, last)
        )
        return hidden, cache if self.context is None else _youngest(cache, self.context)

    def _embed(self, inputs: Tensor, before: int = 0) -> Tensor:
        """Hidden states of sessions from patches of inputs, the first `before` of which are earlier sessions'."""
        if self.patch == 1:
            return self.embed(inputs)
        padded = nn.functional.pad(inputs, (0, 0, self.patch - 1 - before, 0))
        return self.embed(padded.unfold(1, self.patch, 1).flatten(2))

    def _with_ones(self, inputs: Tensor, usable: Tensor) -> Tensor:
        if self.patch == 1:
            return inputs
        return torch.cat([inputs, usable.unsqueeze(-1).to(inputs.dtype)], dim=-1)

    def _empty(self, inputs: Tensor) -> SessionCache:
        """No session; with a `context` already of the size that the cache keeps, so that all calls have one shape."""
        B, M = inputs.shape[0], self.context or 0
        keys = inputs.new_zeros(self.depth, B, self.heads, M, self.width // self.heads)
        F = self.in_features + (self.patch > 1)
        return SessionCache(
            keys,
            torch.zeros_like(keys),
            inputs.new_zeros(B, M, dtype=torch.float32),
            inputs.new_zeros(B, M, dtype=torch.bool),
            inputs.new_zeros(B, self.patch - 1, F),
        )


Transformer = TemporalTransformer  # its name in models saved before there were others


def _compact(inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and mask with the usable steps first, 0 where masked, and the place of each step there."""
    order, place = usable_first(mask)
    inputs = take(torch.where(mask.unsqueeze(-1), inputs, 0.0), order)
    return inputs, take(mask, order), place


def _band(C: int, context: int, device: torch.device) -> Bool[Tensor, "C C"]:
    """Which position may attend to which: itself and those before it, `context` in all."""
    step = torch.arange(C, device=device)
    back = step[:, None] - step
    return torch.logical_and(back >= 0, back < context)


def _seen(known: Bool[Tensor, "B K"], new: int, context: int | None) -> Bool[Tensor, "B 1 k K"]:
    """Which of the `k` new positions may attend to which of all: itself, and the usable ones before it."""
    step = torch.arange(known.shape[1], device=known.device)
    back = step[-new:, None] - step
    allowed = torch.logical_and(known[:, None, :], back >= 0)
    if context is not None:
        count = known.cumsum(1)
        allowed = torch.logical_and(allowed, count[:, -new:, None] - count[:, None, :] < context)
    return torch.logical_or(allowed, back == 0).unsqueeze(1)


def _youngest(cache: SessionCache, count: int) -> SessionCache:
    """A cache with room for so many sessions: the last usable ones, and no other."""
    order = usable_first(~cache.usable)[0][:, -count:]
    depth, _, heads, _, width = cache.keys.shape
    along = order[None, :, None, :, None].expand(depth, -1, heads, -1, width)
    return cache._replace(
        keys=cache.keys.gather(3, along),
        values=cache.values.gather(3, along),
        position=take(cache.position, order),
        usable=take(cache.usable, order),
    )
