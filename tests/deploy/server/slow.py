"""An encoder that is slower than any limit of the tests."""

import time

from torch import Tensor

from qtorch.models import Recurrent

SECONDS = 2.0
MANY = 16  # windows; fewer are answered as fast as ever


class Slow(Recurrent):
    """A recurrent encoder that sleeps before it computes many windows."""

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """The states of the sessions."""
        if len(inputs) > MANY:
            time.sleep(SECONDS)
        return super().forward(inputs, mask)
