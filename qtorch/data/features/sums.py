"""Exponentially weighted sums that go on from where an earlier run has left them, with the same rounding."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class Sums:
    """The sums behind the exponentially weighted means of `N` assets, in the order in which features ask for them.

    What is asked for first in one run is so in all runs over the same features, so that a number tells a sum. Of a sum
    whose series looks `reach` entries back, the first `reach` entries after `skipped` are not right here, and it goes
    on from the one after them.

    Attributes:
        skipped: how many entries of each asset are left out here `[N]`.
        kept_from: the entry of each asset that a later run leaves out all before of `[N]`; at least `skipped`.
        given: of an earlier run with this `skipped`, its `kept`, `[2, N, F]` each; 0 where nothing is skipped.
        kept: for a later run: sums and weights through the entry ``kept_from + reach - 1``, 0 where that is from 0.
    """

    skipped: np.ndarray
    kept_from: np.ndarray
    given: list[np.ndarray]
    kept: list[np.ndarray] = field(default_factory=list)

    def mean(self, x: np.ndarray, decay: float, reach: int) -> np.ndarray:
        """As `qtorch.data.features.windowed.ewma`, of entries `[N, L, F]` from the first that is not left out.

        Args:
            x: the series.
            decay: weight of an entry over that of the next.
            reach: how many entries before it an entry of the series is made of.
        """
        from scipy.signal import lfilter

        there = ~np.isnan(x)
        went_on = self.skipped > 0
        there[went_on, :reach] = False
        sums = np.stack([np.where(there, x, 0.0), there.astype(float)])
        anew = ~went_on
        sums[:, anew] = lfilter([1.0], [1.0, -decay], sums[:, anew], axis=2)
        if went_on.any():
            given = self.given[len(self.kept)]
            # lfilter's own state after an output y is decay y, so that it goes on as if it had never stopped.
            before = decay * given[:, went_on, None]
            sums[:, went_on, reach:], _ = lfilter([1.0], [1.0, -decay], sums[:, went_on, reach:], axis=2, zi=before)
        asset = np.arange(len(x))
        at = self.kept_from + reach - 1 - self.skipped
        kept = sums[:, asset, np.maximum(at, 0)]
        same = went_on & (at < reach)  # no new entry since
        if same.any():
            kept[:, same] = given[:, same]
        kept[:, self.kept_from == 0] = 0.0
        self.kept.append(kept)
        return np.divide(sums[0], sums[1], out=np.full(x.shape, np.nan), where=there)
