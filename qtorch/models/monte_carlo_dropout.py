"""An encoder whose dropout stays on in forecasts."""

import copy

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.models.several_states import SeveralStates
from qtorch.nn import DrawnDropout, Dropout, each_of, replace_parts, run_together


class MonteCarloDropout(SeveralStates):
    """K draws of the nets that an encoder's dropout makes: an approximation of its weights' posterior.

    A draw drops the same units at each session of each asset, on each date and in each batch: it is one function, so
    that what draws say of two assets or dates can be compared. In training each window has a draw of its own, shared by
    its sessions, and one hidden state; with `qtorch.heads.EachDraw` a forecast is the mixture of the draws' laws.
    Dropout of attention weights, which belong to pairs of sessions and not to units, is of training alone.

    Args:
        encoder: with dropout; it stays as it is.
        draws: K.
        seed: of the draws.
        chunk: draws that are evaluated at once, fewer take less memory; None is all.

    Raises:
        ValueError: there are fewer than one draw, or no dropout.

    References:
        Gal and Ghahramani (2016), Dropout as a Bayesian approximation, ICML; the same (2016), A theoretically grounded
        application of dropout in recurrent neural networks, NeurIPS.

    Example:
        >>> from qtorch.models import Recurrent
        >>> encoder = MonteCarloDropout(Recurrent(3, width=8, dropout=0.2), 30).eval()
        >>> encoder(torch.zeros(2, 16, 3), torch.ones(2, 16, dtype=torch.bool)).shape
        torch.Size([2, 16, 30, 8])
    """

    def __init__(self, encoder: nn.Module, draws: int, seed: int = 0, chunk: int | None = None) -> None:
        require(draws >= 1, "draws", draws, "give the number of nets to draw, such as 30")
        super().__init__(copy.deepcopy(encoder), draws)
        self.seed, self.chunk = seed, chunk
        self._places = 0
        for kind in (Dropout, nn.Dropout):
            replace_parts(self.encoder, kind, self._drawn)
        if not self._places:
            raise ArgumentError(
                f"the {type(encoder).__name__} has no dropout of units, so that all draws would be the same. Give it "
                "a probability, such as dropout=0.1."
            )
        run_together(self.encoder)

    def _drawn(self, part: Dropout | nn.Dropout) -> nn.Module:
        if not part.p:
            return part
        self._places += 1
        return DrawnDropout(part.p, self.seed, self._places)

    def forward(
        self, inputs: Float[Tensor, "B C *N F"], mask: Bool[Tensor, "B C *N"]
    ) -> Float[Tensor, "B positions *N K D"]:
        """Hidden states of every draw, of one random draw a window in training; positions as of the encoder."""
        if self.training:
            return self.encoder(inputs, mask).unsqueeze(-2)
        draws = torch.arange(self.draws, device=inputs.device)
        parts = [name for name, part in self.encoder.named_modules() if isinstance(part, DrawnDropout)]
        return each_of(self.encoder, {f"{name}.draw": draws for name in parts}, (inputs, mask), self.chunk)
