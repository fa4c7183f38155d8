"""An ensemble whose members share their matrices."""

import copy
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.models.several_states import SeveralStates
from qtorch.nn import RankOneLinear, each_of, replace_parts, run_together


class BatchEnsemble(SeveralStates):
    """K encoders that share all weights, but for factors of rank one and the bias of each linear map.

    A member's matrix is W times the outer product of two vectors of its own: it costs a few vectors where one of an
    `EncoderEnsemble` costs the whole encoder. Norms, embeddings and recurrent weights are shared as they are. Heads are
    `qtorch.heads.Ensemble`, or `EachDraw` of one that members share.

    Args:
        encoder: with `torch.nn.Linear` maps; it stays as it is.
        members: K.
        chunk: members that are evaluated at once, fewer take less memory; None is all.

    Raises:
        ValueError: there are fewer than one member, or no linear map.

    References:
        Wen, Tran and Ba (2020), BatchEnsemble: an alternative approach to efficient ensemble and lifelong learning,
        ICLR.

    Example:
        >>> import torch
        >>> from qtorch.models import Transformer
        >>> five = BatchEnsemble(Transformer(3, width=8, heads=2), 5)
        >>> five(torch.zeros(2, 16, 3), torch.ones(2, 16, dtype=torch.bool)).shape
        torch.Size([2, 16, 5, 8])
    """

    def __init__(self, encoder: nn.Module, members: int, chunk: int | None = None) -> None:
        require(members >= 1, "members", members, "give the number of members, such as 5")
        super().__init__(copy.deepcopy(encoder), members)
        self.members, self.chunk = members, chunk
        if not replace_parts(self.encoder, nn.Linear, lambda linear: RankOneLinear(linear, members)):
            raise ArgumentError(
                f"the {type(encoder).__name__} has no torch.nn.Linear, by whose factors members differ. Give "
                "EncoderEnsemble, whose members differ in all weights."
            )
        run_together(self.encoder)

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]
    ) -> Float[Tensor, "B positions *N {self.members} D"]:
        """Hidden states of every member, at the positions of the encoder's."""
        own = {
            f"{name}.own.{key}": value
            for name, part in self.encoder.named_modules()
            if isinstance(part, RankOneLinear)
            for key, value in part.own.named_parameters()
        }
        return each_of(self.encoder, own, (inputs, mask), self.chunk)

    def member(self, index: int) -> Any:
        """A copy of one of the encoders, by itself."""
        encoder = copy.deepcopy(self.encoder)
        replace_parts(encoder, RankOneLinear, lambda part: part.member(index))
        return encoder
