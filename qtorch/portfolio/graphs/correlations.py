"""Correlations of assets at some rows of a panel, of what is known there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from qtorch.data import Panel
from qtorch.data.standing import standing
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.portfolio.graphs.closing import SESSIONS, closes_later
from qtorch.portfolio.graphs.returns import LONGEST, Returns, returns
from qtorch.portfolio.graphs.sums import BLOCK, MEMORY, Sums, ewma_sums, rolling_sums

_RECENT = 8  # half-lives that tell of storms; what is before weighs 0.4 %
_FLAT = 1e-12  # a variance below this share of the mean square is that of a constant


@dataclass(frozen=True, eq=False)
class Correlations:
    """Correlations at R rows of a panel.

    Attributes:
        rows: of the panel, ascending.
        values: NaN where one of two assets is not alive, or they have too few observations in common; 1 on the
            diagonal of the living.
        counts: observations behind each; with unequal weights w the effective number (sum w)^2 / sum w^2.
        mask: the assets that are alive: in the universe, with enough observations, not silent for too long.
        volatility: standard deviation of a session's return; NaN where not alive.
        storms: how much more than by chance large returns come together, 1 for none: the mean over pairs of
            `E x^2 y^2 / (E x^2 E y^2)` over that of `1 + 2 r^2`; it widens the errors of correlations.
    """

    rows: Int64[np.ndarray, " R"]
    values: Float[Tensor, "R N N"]
    counts: Float[Tensor, "R N N"]
    mask: Bool[Tensor, "R N"]
    volatility: Float[Tensor, "R N"]
    storms: Float[Tensor, " R"]

    def covariance(self) -> Float[Tensor, "R N N"]:
        """Covariances of session returns, NaN where the correlations are."""
        return self.values * self.volatility[:, :, None] * self.volatility[:, None, :]

    def with_values(self, values: Float[Tensor, "R N N"]) -> "Correlations":
        """The same assets and dates with other correlations."""
        return replace(self, values=values)


def rolling_correlation(
    panel: Panel,
    rows: Sequence[int] | Int64[np.ndarray, " R"] | Int64[Tensor, " R"],
    window: int = 250,
    min_common: int = 60,
    lead_lag: bool = False,
    scale_half_life: float | None = None,
    stale: int = 5,
) -> Correlations:
    """Correlations of session returns over the last `window` rows up to each row, which knows nothing later.

    Each pair is correlated over the rows on which both have a return, around its own means there. A return is from the
    asset's previous close; over k sessions of a halt it is divided by the root of k, and over more than 10 rows it is
    left out.

    With `lead_lag` intervals are matched instead of dates, which is Hayashi and Yoshida's estimator: the covariance of
    two assets is the sum of the products of all returns, each over its whole interval, whose intervals overlap.
    New York's return of Monday goes with Tokyo's of Monday and of Tuesday, which was under way when New York
    closed; and after a holiday or a halt with all that it spans. For returns without serial correlation it is
    consistent whatever the closes are; it is noisier by the products added, and may leave [-1, 1], where it is cut.
    Markets that close within an hour of each other count as closing together, and for those, without holes, nothing
    differs.

    Sums over blocks of rows are shared by overlapping windows, so that a refresh costs the same however long the
    history is: for 500 assets, a window of 250 and monthly rows some 30 ms on one thread, 40 with `lead_lag`. Results
    take 8 bytes for each row and pair.

    Args:
        panel: the market.
        rows: of the panel, ascending.
        window: rows.
        min_common: observations that a pair needs, and an asset to be alive.
        lead_lag: match intervals, for markets that close at different hours.
        scale_half_life: rows; returns are divided by their causal EWMA volatility first, so that storms do not weigh
            more, and `volatility` is that one. None does not.
        stale: an asset is alive until this many sessions of its exchange have passed without a price.

    Raises:
        ValueError: the rows are not ascending rows of the panel, or a setting is out of bounds.

    References:
        Hayashi and Yoshida (2005), On covariance estimation of non-synchronously observed diffusion processes,
        Bernoulli 11, equation 2.3; Scholes and Williams (1977), Estimating betas from nonsynchronous data, JFE 5, for
        the sums over neighbouring sessions.

    Example:
        >>> from qtorch.data import load_sample
        >>> panel = Panel.from_frame(load_sample().query("date >= '2021-01-01' and exchange == 'XNYS'"))
        >>> found = rolling_correlation(panel, [panel.row("2022-06-30")], window=120)
        >>> round(found.values[0, panel.assets.index("JPM"), panel.assets.index("BAC")].item(), 1)
        0.9
    """
    require(window >= 2, "window", window, "give 2 rows or more")
    require(min_common <= window, "min_common", min_common, f"at most the window of {window} rows is needed")
    asked = _rows(panel, rows)
    data, alive, later = _prepare(panel, asked, window, min_common, lead_lag, scale_half_life, stale)
    sums = rolling_sums(data, asked.tolist(), window, lead_lag)
    return _correlations(asked, sums, data, alive, later, min_common, torch.ones(window, dtype=torch.float64))


def ewma_correlation(
    panel: Panel,
    rows: Sequence[int] | Int64[np.ndarray, " R"] | Int64[Tensor, " R"],
    half_life: float = 63.0,
    min_common: int = 60,
    lead_lag: bool = False,
    scale_half_life: float | None = None,
    stale: int = 5,
) -> Correlations:
    """Correlations with weights that halve every `half_life` rows; otherwise as `rolling_correlation`.

    Sums are carried from row to row: for 500 assets and monthly rows some 20 ms each on one thread. Rows more than 32
    half-lives before the first, which weigh 2e-10, are not read.

    Args:
        panel: the market.
        rows: of the panel, ascending.
        half_life: rows.
        min_common: effective observations that a pair needs, and an asset to be alive.
        lead_lag: match intervals, for markets that close at different hours.
        scale_half_life: rows; of the volatility to divide returns by.
        stale: sessions without a price after which an asset is not alive.

    Raises:
        ValueError: as of `rolling_correlation`; or `min_common` is more than the weights can ever be worth.

    References:
        J.P. Morgan (1996), RiskMetrics Technical Document, for the weights; others as of `rolling_correlation`.
    """
    require(half_life > 0, "half_life", half_life, "give a positive number of rows, such as 63.0")
    decay = 0.5 ** (1 / half_life)
    most = (1 + decay) / (1 - decay)
    require(min_common < most, "min_common", min_common, f"weights of this half-life are worth {most:.0f} observations")
    asked = _rows(panel, rows)
    look_back = int(MEMORY * half_life) + 1
    data, alive, later = _prepare(panel, asked, look_back, min_common, lead_lag, scale_half_life, stale)
    weights = decay ** torch.arange(int(_RECENT * half_life), -1, -1, dtype=torch.float64)
    sums = ewma_sums(data, asked.tolist(), decay, lead_lag)
    return _correlations(asked, sums, data, alive, later, min_common, weights)


def _rows(panel: Panel, rows: Sequence[int] | np.ndarray | Tensor) -> Int64[np.ndarray, " R"]:
    asked = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows, dtype=np.int64)
    T = len(panel.dates)
    if len(asked) == 0 or asked[0] < 0 or asked[-1] >= T or (np.diff(asked) <= 0).any():
        raise ArgumentError(
            f"rows must be ascending rows of the panel, 0 to {T - 1}, at least one; not {asked.tolist()}."
        )
    return asked


def _prepare(
    panel: Panel,
    rows: np.ndarray,
    look_back: int,
    min_common: int,
    lead_lag: bool,
    scale_half_life: float | None,
    stale: int,
) -> tuple[Returns, Bool[Tensor, "R N"], Bool[Tensor, "N N"]]:
    """The returns that some rows need, who may be alive there, and whose market closes later."""
    require(min_common >= 2, "min_common", min_common, "give 2 observations or more")
    require(stale >= 0, "stale", stale, "give 0 sessions or more")
    require(
        scale_half_life is None or scale_half_life > 0, "scale_half_life", scale_half_life, "give positive rows or None"
    )
    if lead_lag:
        require(min_common >= SESSIONS, "min_common", min_common, f"with lead_lag give {SESSIONS} or more")
    last, settle = int(rows[-1]), 0 if scale_half_life is None else int(MEMORY * scale_half_life) + 1
    first = max((int(rows[0]) - look_back - settle - 2 * LONGEST) // BLOCK * BLOCK, 0)
    data = returns(panel, first, last, lead_lag, scale_half_life)
    N = len(panel.assets)
    later = torch.zeros(N, N, dtype=torch.bool, device=panel.state.device)
    return data, _listed(panel, rows, stale), closes_later(panel, last) if lead_lag else later


def _listed(panel: Panel, rows: np.ndarray, stale: int) -> Bool[Tensor, "R N"]:
    """Who has had a price by each row, is not silent and not known to be delisted.

    The panel's UNLISTED is not asked, since that a price is the last one is known only later.
    """
    count, silent = standing(panel, rows)
    listed = torch.logical_and(count >= 1, silent <= stale)
    if panel.delisted:
        end = np.array([np.datetime64(panel.delisted.get(asset, "2262-01-01"), "ns") for asset in panel.assets])
        gone = panel.dates.to_numpy()[rows][:, None] > end
        listed = torch.logical_and(listed, ~torch.as_tensor(gone, device=listed.device))
    return listed


def _correlations(
    rows: np.ndarray,
    sums: Iterable[Sums],
    data: Returns,
    listed: Tensor,
    later: Tensor,
    min_common: int,
    weights: Tensor,
) -> Correlations:
    R, N = listed.shape
    shape: dict[str, tuple[int, ...]] = {"values": (R, N, N), "counts": (R, N, N)}
    shape |= {"volatility": (R, N), "storms": (R,)}
    out = {name: torch.full(size, torch.nan, device=listed.device) for name, size in shape.items()}
    mask = torch.zeros_like(listed)
    eye = torch.eye(N, dtype=torch.bool, device=listed.device)
    for r, total in enumerate(sums):
        values, counts = _of_pairs(total.pairs, later)
        volatility, count = _of_assets(total.own)
        if data.volatility is not None:
            volatility = data.volatility[int(rows[r]) - data.first]
        enough = torch.logical_and(count >= min_common, counts.diagonal() >= min_common)
        alive = torch.logical_and(torch.logical_and(listed[r], enough), volatility > 0)
        both = torch.logical_and(alive[:, None], alive)
        out["values"][r] = torch.where(torch.logical_and(both, counts >= min_common), values, torch.nan)
        out["values"][r].masked_fill_(torch.logical_and(eye, both), 1.0)
        out["counts"][r] = torch.where(both, counts, 0.0)
        out["volatility"][r] = torch.where(alive, volatility, torch.nan)
        variance = (total.pairs[3] / total.pairs[0]).diagonal()
        out["storms"][r] = _storms(data, int(rows[r]), weights, variance, out["values"][r])
        mask[r] = alive
    return Correlations(rows, mask=mask, **out)


def _of_pairs(pairs: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Correlations and effective counts of the sums over pairs."""
    weight, square, total, squares, products = pairs[:5]
    mean = total / weight
    variance = squares - mean * total
    joint = weight
    covariance = products
    if len(pairs) > 5:
        joint, holes, ahead = pairs[5:]
        after = torch.where(later, ahead, 0.0)
        covariance = products + holes + holes.T + after + after.T
    covariance = covariance - mean * mean.T * joint
    variance = torch.where(variance > _FLAT * squares, variance, torch.nan)
    counts = weight**2 / square
    counts = torch.minimum(counts, counts.T).nan_to_num(nan=0.0)
    return (covariance / (variance * variance.T).sqrt()).clamp(-1, 1), counts


def _of_assets(own: Tensor) -> tuple[Tensor, Tensor]:
    """Volatilities, without the bias of small samples, and effective counts of the assets' sums."""
    weight, square, total, squares = own
    count = (weight**2 / square).nan_to_num(nan=0.0)
    mean = total / weight
    variance = squares / weight - mean**2
    variance = torch.where(variance > _FLAT * squares / weight, variance, torch.nan)
    return (variance * count / (count - 1)).sqrt(), count


def _storms(data: Returns, row: int, weights: Tensor, variance: Tensor, values: Tensor) -> Tensor:
    """How much more than by chance large returns of the living come together, over the last rows."""
    last = row + 1 - data.first
    at, w = slice(max(last - len(weights), 0), last), weights[-last:].to(variance)
    alive = values.diagonal() == 1
    there = torch.logical_and(data.mask[at], alive)
    squares = torch.where(there, data.value[at] ** 2 / variance, 0.0)
    count = there.sum(1)
    # The sum over pairs of products is the square of the sum less that of squares.
    joint = (w * (squares.sum(1) ** 2 - (squares**2).sum(1))).sum() / (w * (count * (count - 1))).sum()
    known = torch.logical_and(values.isfinite(), ~torch.eye(len(values), dtype=torch.bool, device=values.device))
    usual = 1 + 2 * torch.where(known, values**2, 0.0).sum() / known.sum().clamp(min=1)
    return (joint / usual).nan_to_num(nan=1.0)
