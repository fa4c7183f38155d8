"""CoreML for our recurrent layers, which coremltools does not know; its own are of another order of outputs."""

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch.nn.recurrence import loop

_LSTM_ORDER = (0, 1, 3, 2)  # torch has the gates i, f, g, o; CoreML i, f, o, g


def know_recurrence() -> None:
    """Tells coremltools, in this process, what `qtorch::recurrence` is."""
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    def recurrence(context: Any, node: Any) -> None:
        x, w_x, w_h, b_x, b_h = _get_inputs(context, node)[:5]
        translated: Callable[..., Any] = {"gru": _gru, "lstm": _lstm}[node.inputs[5]]
        context.add(translated(x, *(weights.val for weights in (w_x, w_h, b_x, b_h)), name=node.name))

    register_torch_op(recurrence, torch_alias=[loop.name()], override=True)


def _gru(x: Any, w_x: np.ndarray, w_h: np.ndarray, b_x: np.ndarray, b_h: np.ndarray, name: str) -> Any:
    """By a loop: CoreML's own GRU adds the states' bias to the candidate after the reset gate, torch before."""
    from coremltools.converters.mil.mil import Builder as mb

    of_x = mb.linear(x=mb.transpose(x=x, perm=[1, 0, 2]), weight=w_x, bias=b_x)
    batch = mb.slice_by_index(x=mb.shape(x=x), begin=[0], end=[1])
    steps = mb.slice_by_index(x=mb.shape(x=x), begin=[1], end=[2])
    width = np.array([w_h.shape[1]], np.int32)
    states = mb.fill(shape=mb.concat(values=[mb.add(x=steps, y=1), batch, width], axis=0), value=0.0)

    def goes_on(step: Any, states: Any) -> Any:
        return mb.less(x=step, y=steps)

    def body(step: Any, states: Any) -> tuple[Any, Any]:
        """The state after a step stands one further than that before."""
        h = mb.gather(x=states, indices=step, axis=0)
        x_r, x_z, x_n = mb.split(x=mb.gather(x=of_x, indices=step, axis=0), num_splits=3, axis=-1)
        h_r, h_z, h_n = mb.split(x=mb.linear(x=h, weight=w_h, bias=b_h), num_splits=3, axis=-1)
        r, z = mb.sigmoid(x=mb.add(x=x_r, y=h_r)), mb.sigmoid(x=mb.add(x=x_z, y=h_z))
        n = mb.tanh(x=mb.add(x=x_n, y=mb.mul(x=r, y=h_n)))
        after = mb.add(x=n, y=mb.mul(x=z, y=mb.sub(x=h, y=n)))
        following = mb.add(x=step, y=1)
        return following, mb.scatter(data=states, indices=following, updates=after, axis=0, mode="update")

    _, states = mb.while_loop(_cond=goes_on, _body=body, loop_vars=(np.array([0], np.int32), states))
    states = mb.slice_by_index(x=states, begin=[1, 0, 0], end=[0, 0, 0], end_mask=[True] * 3)
    return mb.transpose(x=states, perm=[1, 0, 2], name=name)


def _lstm(x: Any, w_x: np.ndarray, w_h: np.ndarray, b_x: np.ndarray, b_h: np.ndarray, name: str) -> Any:
    from coremltools.converters.mil.mil import Builder as mb

    def ordered(weights: np.ndarray) -> np.ndarray:
        gates = np.split(weights, 4)
        return np.concatenate([gates[gate] for gate in _LSTM_ORDER])

    width = np.array([w_h.shape[1]], np.int32)
    batch = mb.slice_by_index(x=mb.shape(x=x), begin=[0], end=[1])
    zero = mb.fill(shape=mb.concat(values=[batch, width], axis=0), value=0.0)
    states, _, _ = mb.lstm(
        x=mb.transpose(x=x, perm=[1, 0, 2]),
        initial_h=zero,
        initial_c=zero,
        weight_ih=ordered(w_x),
        weight_hh=ordered(w_h),
        bias=ordered(b_x + b_h),
        direction="forward",
        output_sequence=True,
    )
    return mb.transpose(x=states, perm=[1, 0, 2], name=name)
