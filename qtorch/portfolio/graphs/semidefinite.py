"""Repair of correlation matrices that pairwise observations left with negative eigenvalues."""

import torch

from qtorch.errors import ArgumentError
from qtorch.portfolio.graphs.correlations import Correlations


def positive_semidefinite(correlations: Correlations, floor: float = 1e-6) -> Correlations:
    """Correlations whose living assets have a positive semidefinite matrix with a unit diagonal.

    Where a date's matrix is not positive definite, its eigenvalues below the floor are raised to it, and rows and
    columns are scaled back to a unit diagonal. That is near the nearest such matrix, and one decomposition; other
    dates stay as they are. Computed in float64; in the float32 of the result eigenvalues may be -1e-6 N.

    Args:
        correlations: without holes between living assets, as `shrunk` gives them.
        floor: of eigenvalues, before scaling.

    Raises:
        ValueError: a pair of living assets has no correlation.

    References:
        Rousseeuw and Molenberghs (1993), Transformation of non positive semidefinite correlation matrices,
        Communications in Statistics 22, for the eigenvalue method.
    """
    mask, given = correlations.mask, correlations.values
    alive = torch.logical_and(mask[:, :, None], mask[:, None, :])
    hole = torch.logical_and(alive, given.isnan())
    if hole.any():
        r, i, j = hole.nonzero()[0].tolist()
        raise ArgumentError(
            f"values[{r}, {i}, {j}] is NaN: {int(correlations.counts[r, i, j])} common observations were too few."
            " Fill such pairs first, as shrunk() does with its target."
        )
    eye = torch.eye(mask.shape[1], dtype=torch.float64, device=mask.device)
    values = torch.where(alive, given.double(), eye)  # the dead stand apart
    broken = torch.linalg.cholesky_ex(values - floor / 2 * eye).info > 0
    if not broken.any():
        return correlations
    eigenvalues, vectors = torch.linalg.eigh(values[broken])
    repaired = (vectors * eigenvalues.clamp(min=floor).unsqueeze(1)) @ vectors.mT
    scale = repaired.diagonal(dim1=1, dim2=2).rsqrt()
    repaired = repaired * scale[:, :, None] * scale[:, None, :]
    repaired = (repaired + repaired.mT) / 2
    repaired.diagonal(dim1=1, dim2=2).fill_(1.0)
    out = given.clone()
    out[broken] = torch.where(alive[broken], repaired.to(given.dtype), given[broken])
    return correlations.with_values(out)
