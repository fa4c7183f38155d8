"""Recurrent layers that torch.compile and torch.export take as they are: no break in the graph, nothing unrolled.

Dynamo refuses `torch.nn.GRU` and `LSTM`, and where it is told to let them in, their loop is unrolled over the window,
which takes minutes to compile, and an export would be of one length of window. So under torch.compile and torch.export
the loop is an operation of its own, which the compiler does not look into: forward torch's fused loop, backward by the
formulas below. All that does not depend on the step before is done for all steps at once there; the states are known,
so that each step's gates are.

An exported graph names it `qtorch::recurrence`, once for each layer, so that who loads the graph imports this module
first. Its arguments are those of one layer of `torch.nn.GRU` or `LSTM` with `batch_first`, `(x, weight_ih, weight_hh,
bias_ih, bias_hh, cell)`, gates in torch's order, the initial state zero; it gives the states `[B, C, D]` alone. ONNX
has operators for it: GRU with `linear_before_reset=1`, and LSTM, of gates in another order.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.errors import ArgumentError
from qtorch.nn import recurrences
from qtorch.nn.dropout import Dropout

CELLS = ("gru", "lstm")
_LOOPS: dict[str, Callable[..., Any]] = {"gru": torch.gru, "lstm": torch.lstm}


class Recurrence(nn.RNNBase):
    """GRU or LSTM layers from a zero state: torch's, but for what torch.compile makes of them.

    Args:
        cell: ``"gru"`` or ``"lstm"``.
        width: of inputs and states, `D`.
        depth: layers.
        dropout: probability, in training, of the states between layers.

    Attributes:
        whole: take the operation where nothing is compiled too, False at first. `torch.func.vmap` over several nets'
            weights takes it, and not torch's loop; GRUs then run step by step together, LSTMs one after another.

    Raises:
        ValueError: the cell is not known.

    References:
        Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder; Hochreiter and Schmidhuber (1997).
    """

    def __init__(self, cell: str, width: int, depth: int = 1, dropout: float = 0.0) -> None:
        if cell not in CELLS:
            raise ArgumentError(f"cell must be one of {', '.join(CELLS)}, not {cell!r}.")
        super().__init__(cell.upper(), width, width, depth, batch_first=True, dropout=dropout if depth > 1 else 0.0)
        self.cell, self.whole = cell, False
        self.between = Dropout(self.dropout)

    def forward(self, inputs: Float[Tensor, "B C D"]) -> Float[Tensor, "B C D"]:
        """The states after each step."""
        if self.whole or torch.compiler.is_compiling():
            for layer in range(self.num_layers):
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                states = loop(inputs, *(getattr(self, f"{name}_l{layer}") for name in names), self.cell)
                inputs = self.between(states) if layer + 1 < self.num_layers else states
            return inputs
        zero = inputs.new_zeros(self.num_layers, inputs.shape[0], self.hidden_size)
        weights = [
            getattr(self, name) for name in self._flat_weights_names
        ]  # as they now are: callers may replace them
        return _fused(self.cell, inputs, zero, weights, self.num_layers, self.dropout, self.training)


def _fused(
    cell: str,
    inputs: Float[Tensor, "B C D"],
    zero: Float[Tensor, "L B D"],
    weights: list[Tensor],
    depth: int,
    dropout: float,
    training: bool,
) -> Float[Tensor, "B C D"]:
    """The states of torch's own loop."""
    state = zero if cell == "gru" else (zero, zero)
    return _LOOPS[cell](inputs, state, weights, True, depth, dropout, training, False, True)[0]


def _loop(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, cell: str) -> Tensor:
    """The states `[B, C, D]` of one layer."""
    zero = x.new_zeros(1, x.shape[0], w_h.shape[1])
    return _fused(cell, x, zero, [w_x, w_h, b_x, b_h], 1, 0.0, False).contiguous()  # the layout that is promised below


def _loop_backward(
    grad: Tensor, states: Tensor, x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, cell: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the inputs, of both matrices and of both biases."""
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
    of_x, of_h = nn.functional.linear(x, w_x, b_x), nn.functional.linear(before, w_h, b_h)
    of_x, of_h = _BACKWARD[cell](grad, before, of_x, of_h, w_h)
    flat_x, flat_h = of_x.flatten(0, 1), of_h.flatten(0, 1)
    of_weights = flat_x.T @ x.flatten(0, 1), flat_h.T @ before.flatten(0, 1)
    return of_x @ w_x, *of_weights, flat_x.sum(0), flat_h.sum(0)


def _gru_backward(grad: Tensor, before: Tensor, of_x: Tensor, of_h: Tensor, w_h: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the GRU's sums before its gates, those of inputs and those of states.

    With r = sigma(x_r + h_r), z = sigma(x_z + h_z), n = tanh(x_n + r h_n) and h' = (1 - z) n + z h.
    """
    (x_r, x_z, x_n), (h_r, h_z, h_n) = of_x.chunk(3, -1), of_h.chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    to_n = (1 - z) * (1 - n**2)
    per_state = torch.stack([to_n * h_n * r * (1 - r), (before - n) * z * (1 - z), to_n * r], dim=2)
    of_h, carry = torch.empty_like(of_h), torch.zeros_like(grad[:, 0])
    total = torch.empty_like(grad)
    for t in range(grad.shape[1] - 1, -1, -1):
        total[:, t] = at = grad[:, t] + carry
        of_h[:, t] = step = (at.unsqueeze(1) * per_state[:, t]).flatten(1)
        carry = torch.addmm(at * z[:, t], step, w_h)
    return torch.cat([of_h[..., : -n.shape[-1]], total * to_n], dim=-1), of_h


def _lstm_backward(grad: Tensor, before: Tensor, of_x: Tensor, of_h: Tensor, w_h: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the LSTM's sums before its gates, which inputs and states share.

    With i, f, o = sigma and g = tanh of the sums, c' = f c + i g and h' = o tanh(c').
    """
    i, f, g, o = (of_x + of_h).chunk(4, -1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    written, c = i * g, torch.empty_like(grad)
    memory = torch.zeros_like(grad[:, 0])
    for t in range(grad.shape[1]):
        c[:, t] = memory = f[:, t] * memory + written[:, t]
    c_before = torch.cat([torch.zeros_like(c[:, :1]), c[:, :-1]], dim=1)
    shown = torch.tanh(c)
    to_c, to_o = o * (1 - shown**2), shown * o * (1 - o)
    per_memory = torch.stack([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g**2)], dim=2)
    sums = torch.empty_like(of_h)
    of_state, of_memory = torch.zeros_like(memory), torch.zeros_like(memory)
    for t in range(grad.shape[1] - 1, -1, -1):
        at = grad[:, t] + of_state
        of_memory = of_memory + at * to_c[:, t]
        gates = (of_memory.unsqueeze(1) * per_memory[:, t]).flatten(1)
        sums[:, t] = step = torch.cat([gates, at * to_o[:, t]], dim=-1)
        of_state, of_memory = step @ w_h, of_memory * f[:, t]
    return sums, sums


_BACKWARD = {"gru": _gru_backward, "lstm": _lstm_backward}


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.cell = inputs
    ctx.save_for_backward(output, *tensors)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    gradients = torch.ops.qtorch.recurrence_backward(grad.contiguous(), *ctx.saved_tensors, ctx.cell)
    return *gradients, None


def _shape(x, w_x, w_h, b_x, b_h, cell):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape[0], x.shape[1], w_h.shape[1])


def _backward_shapes(grad, states, x, w_x, w_h, b_x, b_h, cell):  # type: ignore[no-untyped-def]
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, w_x, w_h, b_x, b_h))


def _keep_several(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, w_x, w_h, *_ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # else autograd makes zeros for what is kept, four times as large as the states
    ctx.save_for_backward(*output, x, w_x, w_h)


def _differentiate_several(ctx, grad, _):  # type: ignore[no-untyped-def]
    return *torch.ops.qtorch.recurrences_backward(grad, *ctx.saved_tensors), None


def _shapes_of_several(x, w_x, w_h, b_x, b_h, keep):  # type: ignore[no-untyped-def]
    K, B, C, D = x.shape
    return x.new_empty(K, B, C, D), x.new_empty(C if keep else 0, K, B, 4 * D)


def _backward_shapes_of_several(grad, states, kept, x, w_x, w_h):  # type: ignore[no-untyped-def]
    bias = w_x.new_empty(w_x.shape[:2])
    return states.new_empty(states.shape), w_x.new_empty(w_x.shape), w_h.new_empty(w_h.shape), bias, bias.clone()


def _vectorise(info, in_dims, x, *rest):  # type: ignore[no-untyped-def]
    """The nets that vmap runs together."""
    *weights, cell = rest
    stacked = [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((x, *weights), in_dims[:-1], strict=True)
    ]
    if cell == "gru":
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in stacked)
        return torch.ops.qtorch.recurrences(*stacked, keep)[0], 0
    return torch.stack([loop(*of_one, cell) for of_one in zip(*stacked, strict=True)]), 0


# By schemas, because `torch.library.custom_op` and `register_fake` read source files, which would slow the import.
_WEIGHTS = "Tensor w_x, Tensor w_h, Tensor b_x, Tensor b_h, str cell"
_FIVE = "(Tensor, Tensor, Tensor, Tensor, Tensor)"
for _name, _schema, _function, _shapes in (
    ("recurrence", f"(Tensor x, {_WEIGHTS}) -> Tensor", _loop, _shape),
    (
        "recurrence_backward",
        f"(Tensor grad, Tensor states, Tensor x, {_WEIGHTS}) -> {_FIVE}",
        _loop_backward,
        _backward_shapes,
    ),
    (
        "recurrences",
        "(Tensor x, Tensor w_x, Tensor w_h, Tensor b_x, Tensor b_h, bool keep) -> (Tensor, Tensor)",
        recurrences.forward,
        _shapes_of_several,
    ),
    (
        "recurrences_backward",
        f"(Tensor grad, Tensor states, Tensor kept, Tensor x, Tensor w_x, Tensor w_h) -> {_FIVE}",
        recurrences.backward,
        _backward_shapes_of_several,
    ),
):
    torch.library.define(f"qtorch::{_name}", _schema)
    torch.library.impl(f"qtorch::{_name}", "CompositeExplicitAutograd", _function)
    torch.library.impl(f"qtorch::{_name}", "Meta", _shapes)
torch.library.register_autograd("qtorch::recurrence", _differentiate, setup_context=_keep)
torch.library.register_autograd("qtorch::recurrences", _differentiate_several, setup_context=_keep_several)
torch.library.register_vmap("qtorch::recurrence", _vectorise)
loop = torch.ops.qtorch.recurrence.default
