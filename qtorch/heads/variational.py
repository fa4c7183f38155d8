"""A variational posterior of the affine map of any parametric head."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qtorch.distributions import Posterior
from qtorch.distributions.checks import require
from qtorch.heads.drawn_weights import equally_likely, parameters_of_draws
from qtorch.heads.gaussian_weights import Covariance, GaussianWeights, antithetic
from qtorch.heads.parametric import Parameters, Parametric

TRAINING_DRAWS = 4


class Variational(nn.Module):
    """Learns how sure a head is of its affine map: a Gaussian over weights and biases, trained by the evidence bound.

    Training draws two antithetic pairs of weights for each batch, and scores each: an unbiased estimate of the bound's
    expected log likelihood, with any law. `penalty` is the rest of the bound, the divergence from the prior, which
    `Forecaster` divides by the number of observed targets. Forecasts are mixtures over fixed draws.

    The prior's mean is the head as it is given, whose own weights are frozen there. The posterior is independent
    between horizons, which costs nothing: given the hidden state no target tells of two horizons' weights, so that the
    exact posterior is too.

    The bound counts the returns of one date as independent given the hidden states. Pooled over assets that move
    together it is too sure of what they share: with a correlation of 0.4 among 20 of them, by a factor of 2.9 in the
    standard deviation. `qtorch.training.Laplace` has an option `by_date` for that.

    Args:
        head: any parametric head.
        covariance: ``"full"`` among the weights of a horizon, `size * (D + 1)` of them, or ``"diagonal"``.
        prior_scale: standard deviation of each weight; None has it learned (empirical Bayes). The bound does not tell
            scales of weights apart that the data leave at the prior: a learned scale then stays near a fresh
            posterior's standard deviation, 0.1 / sqrt(D + 1).
        draws: `K` of forecasts, even.

    Raises:
        ValueError: the number of draws is odd or below 2, or as of `GaussianWeights`.

    References:
        Hinton and van Camp (1993), Keeping neural networks simple by minimizing the description length of the weights,
        COLT; Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), Weight uncertainty in neural networks, ICML.

    Example:
        >>> from qtorch.heads import SkewedStudentT
        >>> head = Variational(SkewedStudentT(8, (1, 10)))
        >>> head.penalty().item() > 0, head.eval()(torch.randn(3, 8)).batch_shape
        (True, torch.Size([3, 2]))
    """

    noise: Tensor

    def __init__(
        self,
        head: Parametric,
        *,
        covariance: Covariance = "full",
        prior_scale: float | None = 1.0,
        draws: int = 32,
    ) -> None:
        super().__init__()
        require(draws > 1 and draws % 2 == 0, "draws", draws, "give an even number: they come in pairs")
        self.head, self.covariance, self.prior_scale, self.draws = head, covariance, prior_scale, draws
        self.in_features, self.horizons = head.in_features, head.horizons
        head.project.requires_grad_(False)
        inputs = head.in_features + 1
        # A fresh posterior moves raw numbers, sums over the hidden state, by about a tenth.
        self.weights = GaussianWeights(
            len(head.horizons), head.size * inputs, covariance, prior_scale, start=0.1 / inputs**0.5
        )
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("noise", antithetic(draws, self.weights.groups, self.weights.size, generator))

    def penalty(self) -> Float[Tensor, ""]:
        """The divergence of the posterior from the prior in nats, summed over all weights."""
        return self.weights.penalty()

    def offsets(self) -> Float[Tensor, "K H size W"]:
        """Draws of the affine map, less the prior's mean: fresh ones in training, else the fixed ones."""
        noise = self.noise
        if self.training:
            noise = antithetic(TRAINING_DRAWS, self.weights.groups, self.weights.size, like=noise)
        return self.weights.draws(noise).unflatten(-1, (self.head.size, self.in_features + 1))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors of `parameters_of`, in their order."""
        return self.head.names

    def parameters_of(self, hidden: Float[Tensor, "*batch D"]) -> Parameters:
        """Tensors of the laws' parameters, each `[*batch, H, K, ...]`."""
        return parameters_of_draws(self.head, self.offsets(), hidden)

    def distribution(self, *parameters: Tensor) -> Posterior:
        """The mixture of parameters as `parameters_of` gives them, batch shape `[*batch, H]`."""
        return equally_likely(self.head.distribution(*parameters), parameters[0])

    def forward(self, hidden: Float[Tensor, "*batch D"]) -> Posterior:
        """The distribution of standardised returns, batch shape `[*batch, H]`."""
        return self.distribution(*self.parameters_of(hidden))
