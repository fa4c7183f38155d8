"""What a calibrator learns of one row: outcomes, and their means over groups of assets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from qtorch.portfolio.groups import numbered


@dataclass(frozen=True)
class Outcomes:
    """Outcomes that became known on one row.

    Attributes:
        group: labels of the groups that learn together, -1 for an asset of its own.
        mask: what became known now and counts; elsewhere the others are placeholders.
        pit: of the outcome under the raw law.
        excess: of the loss over the raw VaR of each level, in units of the forecast's scale.
        mass: that was issued, the clamped one.
        shift: that was issued, in units of the forecast's scale.
    """

    group: Int64[Tensor, " N"]
    mask: Bool[Tensor, "H N"]
    pit: Float64[Tensor, "H N"]
    excess: Float64[Tensor, "L H N"]
    mass: Float64[Tensor, "L H N"]
    shift: Float64[Tensor, "L H N"]

    def joined(self, other: "Outcomes") -> "Outcomes":
        """These and others, of which none is of the same asset and horizon."""
        names = ("pit", "excess", "mass", "shift")
        parts = (torch.where(other.mask, getattr(other, name), getattr(self, name)) for name in names)
        return Outcomes(self.group, self.mask | other.mask, *parts)

    def mean(self, values: Float64[Tensor, "*series H N"]) -> Float64[Tensor, "*series H N"]:
        """The mean over the outcomes of each asset's group, 0 where there is none; the asset's own without a group."""
        total = self._summed(torch.where(self.mask, values, 0.0))
        return total / self._summed(self.mask.double()).clamp(min=1.0)

    @property
    def taught(self) -> Bool[Tensor, "H N"]:
        """Whether there is an outcome of the asset's group."""
        return self._summed(self.mask.double()) > 0

    def _summed(self, values: Tensor) -> Tensor:
        N = len(self.group)
        place = torch.where(self.group < 0, torch.arange(N, device=self.group.device), N + self.group)
        sums = values.new_zeros(*values.shape[:-1], N + int(self.group.max()) + 1 if N else 0)
        return sums.index_add_(-1, place, values)[..., place]


def labels_of(groups: Mapping[str, str | None] | None, assets: Sequence[str]) -> Int64[Tensor, " N"]:
    """A number for each group, -1 for an asset of its own.

    Raises:
        DataError: groups are given, and an asset is not named.
    """
    each = dict.fromkeys(assets) if groups is None else groups
    return numbered({"calibration": each}, assets)["calibration"].long()
