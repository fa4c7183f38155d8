"""A head of mixtures of Student's t for several horizons."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qtorch import distributions
from qtorch.distributions.checks import require
from qtorch.heads.bounds import degrees_of_freedom, location, within
from qtorch.heads.parametric import Parameters, Parametric


class Mixture(Parametric):
    """Maps hidden states to mixtures of Student-t distributions of returns in units of the window's scale.

    Calm and wild markets, or several modes: each component has a weight, degrees of freedom, a location and a scale of
    its own. Quantiles are found by Newton's method, so that objectives of quantiles and tail means take longer to train
    than with other heads. The mixture is the law itself; what a model's doubt is, is a
    `qtorch.distributions.Posterior`.

    Every parameter is bounded, so that no hidden state, however odd, gives an absurd forecast: a component's volatility
    for horizon h is sqrt(h) times a factor between 1/8 and 8 times that of a fresh head; its degrees of freedom are
    between 2.1 and 60; its median is at most half of its scale from zero, so that the value at risk at 90 % or beyond
    is always a loss, as it is of each; a weight is at most 2,500 times another. A fresh head is RiskMetrics: equal
    weights, medians zero, 6 degrees of freedom each, and volatilities that rise by half from the first component to the
    last, lest all learn the same, and that of the mixture is sqrt(h).

    Args:
        in_features: hidden width `D`.
        horizons: the horizons in sessions, `H` of them.
        components: of the mixture, `K`.

    Raises:
        ValueError: there are fewer than two components.

    References:
        Bishop (1994), Mixture density networks, Aston University, technical report NCRG/94/004; Haas, Mittnik and
        Paolella (2004), Mixed normal conditional heteroskedasticity, Journal of Financial Econometrics 2.

    Example:
        >>> law = Mixture(8, [1, 10], components=3)(torch.randn(5, 8))
        >>> law.batch_shape, law.components.batch_shape
        (torch.Size([5, 2]), torch.Size([5, 2, 3]))
    """

    spread: Tensor

    names = ("weights", "df", "loc", "scale")

    def __init__(self, in_features: int, horizons: Sequence[int], components: int = 2) -> None:
        require(components >= 2, "components", components, "give at least 2; StudentT is the head of one")
        super().__init__(in_features, horizons, size=4 * components)
        self.components = components
        rising = 1.5 ** torch.linspace(0.0, 1.0, components)
        self.register_buffer("spread", rising / rising.square().mean().sqrt(), persistent=False)

    def constrain(self, raw: Float[Tensor, "*batch H size"]) -> Parameters:
        """Tensors of weights, df, loc and scale, each `[*batch, H, K]`."""
        logits, tails, widths, places = raw.unflatten(-1, (4, self.components)).unbind(-2)
        df = degrees_of_freedom(tails)
        volatility = self.volatility(widths.movedim(-1, 0)).movedim(0, -1)  # horizons stand last there
        scale = self.spread * volatility * torch.sqrt((df - 2) / df)
        return torch.softmax(within(50.0, logits), dim=-1), df, location(places, scale), scale

    def distribution(self, *parameters: Tensor) -> distributions.Mixture:
        """The distribution of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        weights, *components = parameters
        return distributions.Mixture(weights, distributions.StudentT(*components))
