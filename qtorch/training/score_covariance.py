"""The variance of the log likelihood's gradient where targets of one date depend on each other."""

import torch
from jaxtyping import Float64
from torch import Tensor

from qtorch.errors import ArgumentError
from qtorch.heads.parametric import Parametric
from qtorch.training.last_layer import LastLayer, affine_map


def score_covariance(head: Parametric, data: LastLayer) -> Float64[Tensor, "H P P"]:
    """The covariance of the gradient in a head's affine map, of all targets together, `P = size * W`.

    It is the sum of g g' over dates, g the gradient of a date's targets, each weighted 1/h. The targets of a horizon of
    h > 1 sessions overlap with those of the dates next to them, whose products are added with weights that fall to 0 at
    4 h dates: of the dependence of overlapping returns that leaves out 8 %.

    Args:
        head: whose map is where the gradient is taken.
        data: what it sees, with dates.

    Raises:
        ValueError: the data have no dates.

    References:
        Newey and West (1987), A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
        covariance matrix, Econometrica 55.
    """
    if data.date is None:
        raise ArgumentError("the dates of targets are not known. Give LastLayer(..., date=...), or LastLayer.of(...).")
    weights = affine_map(head)
    x = torch.nn.functional.pad(data.hidden.double(), (0, 1), value=1.0)
    outcome = torch.where(data.weight > 0, data.outcome.double(), 0.0)
    with torch.enable_grad():
        raw = torch.einsum("hsw,qw->qhs", weights, x).requires_grad_()
        value = head.distribution(*head.constrain(raw)).log_prob(outcome)
        (slope,) = torch.autograd.grad((data.weight * value).sum(), raw)
    first = int(data.date.min())
    gradients = weights.new_zeros(int(data.date.max()) - first + 1, *weights.shape)
    for s in range(weights.shape[1]):  # one at a time: all together are `size` times the hidden states
        gradients[:, :, s].index_add_(0, data.date - first, slope[:, :, s, None] * x.unsqueeze(1))
    parts = []
    for h, of_horizon in zip(head.horizons, gradients.flatten(2).unbind(1), strict=True):
        span = 1 if h == 1 else 4 * h
        padded = torch.nn.functional.pad(of_horizon.mT, (span, span - 1)).cumsum(-1)
        sums = padded[:, span:] - padded[:, :-span]  # of every run of `span` dates
        parts.append(sums @ sums.mT / span)
    return torch.stack(parts)
