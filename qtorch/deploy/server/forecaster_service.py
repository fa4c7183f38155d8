"""A forecaster as tensors in and out: windows, and risk measures and parameters of the laws."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import pad

from qtorch.deploy.program import program_of
from qtorch.deploy.server.protocol import Limits, RequestError
from qtorch.deploy.server.tensor_inputs import require_finite
from qtorch.deploy.server.tensor_options import LEVELS, levels_of, require_known, text_of_levels
from qtorch.deploy.server.tensor_outputs import require_finite_output
from qtorch.deploy.signature import TensorSpec
from qtorch.risk import expected_shortfall, value_at_risk
from qtorch.training import Forecaster

MEASURES = ("mean", "volatility", "value_at_risk", "expected_shortfall")
_BY_LEVEL = {"value_at_risk": value_at_risk, "expected_shortfall": expected_shortfall}
_LAW = "law."  # before the names of parameters, since some are called as measures are


class ForecasterService:
    """What a request of a forecaster holds, and what is computed of it.

    Windows shorter than the model's context are padded on the left and masked, as the library's own windows are.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: Forecaster) -> None:
        self.model = model
        self.program = program_of(model)
        self.optional = frozenset({"scale"})
        self.default = MEASURES
        spec, layout = model.spec, model.network.layout
        self.panel = layout == "panel"
        inputs, mask = self.program.signature.inputs
        assets = ("N",) if self.panel else ()
        self.inputs = (
            replace(inputs, axes=("B", "C", *inputs.axes[2:])),
            replace(mask, axes=("B", "C", *mask.axes[2:])),
            TensorSpec(
                "scale",
                "float32",
                ("B", *assets),
                "Causal volatility of one session as of each window's last one, in units of which the model sees and "
                "predicts returns, decimals. Without it measures are in units of that volatility.",
            ),
        )
        horizons = ", ".join(map(str, spec.horizons))
        unit = f"simple return over {horizons} sessions, in decimals where the scale is"
        axes = ("B", len(spec.horizons), *assets)
        self.outputs = (
            TensorSpec("mean", "float64", axes, f"Mean of the {unit}."),
            TensorSpec("volatility", "float64", axes, f"Standard deviation of the {unit}; not annualised."),
            TensorSpec("value_at_risk", "float64", (*axes, "L"), f"Positive loss of the {unit}, by level."),
            TensorSpec("expected_shortfall", "float64", (*axes, "L"), f"Positive mean loss of the {unit}, by level."),
            *(replace(output, name=_LAW + output.name) for output in self.program.signature.outputs),
        )
        self.about = {
            "kind": "forecaster",
            "layout": layout,
            "context": spec.context,
            "horizons": list(spec.horizons),
            "features": list(spec.features.names),
            "levels": list(LEVELS),
            "nan": "Measures of assets whose last session in the window is masked." if self.panel else "None.",
        }

    def options(self, parameters: dict[str, Any]) -> tuple[float, ...]:
        """The levels of a request.

        Raises:
            RequestError: 422, as of `levels_of`, or a parameter is not known.
        """
        require_known(parameters, "levels")
        return levels_of(parameters)

    def told(self, levels: tuple[float, ...], names: tuple[str, ...]) -> dict[str, str]:
        """The parameters of a response: the levels of the outputs, where some are by level."""
        return {"levels": text_of_levels(levels)} if _BY_LEVEL.keys() & set(names) else {}

    def prepared(self, tensors: dict[str, Tensor], sizes: Mapping[str, int], limits: Limits) -> dict[str, Tensor]:
        """Windows of the model's context, 0 and scale 1 where masked.

        Raises:
            RequestError: 422 a window is too long, holds nothing, or what is usable is not finite; 413 windows of the
                model's context have more elements than the server takes.
        """
        context = self.model.spec.context
        inputs, mask = tensors["inputs"], tensors["mask"]
        length = sizes["C"]
        if length > context:
            raise RequestError(
                422,
                f"input 'inputs': {length} sessions, but the model sees {context}. Send the last ones of each window.",
            )
        if inputs.numel() // length * context > limits.max_elements:
            raise RequestError(
                413, f"windows of {context} sessions are over the limit of {limits.max_elements} elements. Send fewer."
            )
        require_finite("inputs", inputs, mask.unsqueeze(-1).expand(inputs.shape), "where the mask is true")
        last = mask[:, -1]
        held = last.flatten(1).any(1) if self.panel else last
        if not held.all():
            which = int((~held).nonzero()[0])
            what = "no asset's last session" if self.panel else "its last session is not"
            raise RequestError(
                422, f"input 'mask': of window {which} {what} usable. Let windows end at a session that is."
            )
        scale = tensors.get("scale", torch.ones(last.shape))
        require_finite("scale", scale, last, "where the window's last session is usable")
        scale = torch.where(last, scale, 1.0)
        if (scale <= 0).any():
            at = (scale <= 0).nonzero()[0].tolist()
            raise RequestError(422, f"input 'scale': {scale[tuple(at)].item()} at {at}. Give volatilities above 0.")
        before = (0, 0) * (inputs.ndim - 2) + (context - length, 0)
        return {
            "inputs": pad(torch.where(mask.unsqueeze(-1), inputs, 0.0), before),
            "mask": pad(mask, before[2:]),
            "scale": scale,
        }

    def network(self, tensors: dict[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """The laws' parameters, of windows in the first axis."""
        return self.program(tensors["inputs"], tensors["mask"])

    def answers(
        self,
        parameters: tuple[Tensor, ...],
        tensors: dict[str, Tensor],
        levels: tuple[float, ...],
        names: tuple[str, ...],
    ) -> dict[str, Tensor]:
        """The outputs that are wanted, and no others.

        Raises:
            RequestError: 422, measures are wanted of laws that have no marginals, or are not finite.
        """
        own = dict(zip((output.name for output in self.program.signature.outputs), parameters, strict=True))
        found = {name: own[name.removeprefix(_LAW)] for name in names if name.startswith(_LAW)}
        if measures := [name for name in names if name in MEASURES]:
            law = self._law(parameters)
            # All measures are in units of the scale; float64 holds their product with any scale of float32.
            scale = tensors["scale"].double().unsqueeze(1)
            there = tensors["mask"][:, -1].unsqueeze(1) if self.panel else torch.tensor(True)
            for name in measures:
                by_level = name in _BY_LEVEL
                value = _measure(law, name, levels).double() * (scale.unsqueeze(-1) if by_level else scale)
                usable = there.unsqueeze(-1) if by_level else there
                require_finite_output(name, value, usable)
                found[name] = torch.where(usable, value, torch.nan)
        return {name: found[name] for name in names}

    def _law(self, parameters: tuple[Tensor, ...]) -> Distribution:
        """The law of each asset's return in units of its scale, batch shape `[B, H]` or `[B, H, N]`."""
        if self.panel:  # heads have assets before horizons, laws after
            parameters = tuple(parameter.movedim(2, 1) for parameter in parameters)
        law: Any = self.model.network.head.distribution(*parameters)
        if not law.event_shape:
            return law
        if law.marginals is None:
            head = type(self.model.network.head).__name__
            raise RequestError(
                422,
                f"a {head} has no marginals in closed form, and so no measures of single assets. Ask for outputs such "
                f"as {self.outputs[len(MEASURES)].name!r}, or a portfolio's risk.",
            )
        return law.marginals


def _measure(law: Distribution, name: str, levels: tuple[float, ...]) -> Tensor:
    if name in _BY_LEVEL:
        return torch.stack([_BY_LEVEL[name](law, level) for level in levels], dim=-1)
    return law.mean if name == "mean" else law.variance.sqrt()
