"""The forecaster of a user who names nothing: what did best on data before any test."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtorch.data.features import (
    DownsideRatio,
    Drift,
    Features,
    LaterCloses,
    RangeRatio,
    TailHistory,
    WithIndicator,
    default_features,
)
from qtorch.data.panel import Panel
from qtorch.data.window import WindowSpec
from qtorch.distributions.checks import require
from qtorch.errors import ArgumentError
from qtorch.heads import Ensemble, SkewedStudentT
from qtorch.models.baselines import Garch
from qtorch.models.encoder_ensemble import EncoderEnsemble
from qtorch.models.recurrent import Recurrent

if TYPE_CHECKING:
    from qtorch import training
    from qtorch.training import Forecaster, Schedule

_DECAYS = (0.8, 0.94, 0.985)


def default_windows(panel: Panel, *, horizons: Sequence[int] = (1, 10), context: int = 64) -> WindowSpec:
    """What the default forecaster sees of a market.

    The default features, the drift of each asset, its downside volatility and the history of its tails; the volatility
    of sessions' ranges, where the panel has open, high and low; and on a market of several exchanges what happened at
    those that close later.

    Args:
        panel: the market; which exchanges and fields it has matters, and nothing else of it.
        horizons: in an asset's own sessions.
        context: own sessions that are seen.
    """
    parts = [*default_features(), *map(Drift, _DECAYS), *map(DownsideRatio, _DECAYS), *map(TailHistory, (0.985, 0.996))]
    if {"open", "high", "low"} <= set(panel.fields):
        parts += [WithIndicator(RangeRatio("garman_klass", decay)) for decay in (0.8, 0.94)]
    if len(set(panel.exchanges)) > 1:
        parts.append(LaterCloses())
    return WindowSpec(context, tuple(horizons), Features(tuple(parts)))


def default_forecaster(
    panel: Panel, *, horizons: Sequence[int] = (1, 10), context: int = 64, members: int = 1
) -> "Forecaster":
    """A fresh forecaster for a market: a recurrent net over 64 sessions with a skewed Student-t head, to be trained.

    What it is made of was chosen on the years before each market's test, among the encoders of this room; the runs are
    in benchmarks/results. Train it with `qtorch.training.fit` on all data before the test, for the 15 epochs that are
    its default: validation on the last years stopped too early or too late by what these happened to be like.

    Args:
        panel: the market; which exchanges and fields it has matters, and nothing else of it.
        horizons: in an asset's own sessions.
        context: own sessions that are seen.
        members: networks with weights of their own, which are trained and saved as one and forecast as a mixture; a
            forecast of several says where they disagree, `forecast.decompose()`.

    Example:
        >>> from qtorch.data import Panel, load_sample
        >>> panel = Panel.from_frame(load_sample()).select(["AAPL", "EURUSD"])
        >>> model = default_forecaster(panel, horizons=(1, 5))
        >>> len(model.spec.features), model.spec.horizons
        (38, (1, 5))
    """
    from qtorch.training import Forecaster, HideInputs

    spec = default_windows(panel, horizons=horizons, context=context)
    encoder: Recurrent | EncoderEnsemble = default_encoder(spec)
    head: SkewedStudentT | Ensemble = SkewedStudentT(encoder.out_features, spec.horizons)
    if members > 1:
        encoder, head = EncoderEnsemble(encoder, members), Ensemble(head, members)
    return Forecaster(encoder, head, spec, schedule=default_schedule(), augmentation=HideInputs.by_kind(spec))


def default_ensemble(networks: Sequence["Forecaster"], *, garch: float = 0.2) -> "training.Ensemble":
    """Trained forecasters with equal weights, and beside them a GJR-GARCH model of each asset.

    A pooled network and a model of each asset's own returns err at different times: before the tests, their mixture
    had a lower FZ0 loss than the networks alone on indices, the same on stocks, and on both was better than GARCH more
    reliably. GARCH has Hansen's skewed errors and is refitted once in 250 rows of the panel.

    Args:
        networks: trained, such as `default_forecaster` from several seeds; of the same horizons.
        garch: the weight of GARCH in [0, 1).

    Raises:
        ValueError: there is no network, their horizons differ, or the weight is outside [0, 1).
    """
    from qtorch import training

    require(0 <= garch < 1, "garch", garch, "give the weight of GARCH in [0, 1)")
    horizons = {network.spec.horizons for network in networks}
    if len(horizons) != 1:
        raise ArgumentError(f"an ensemble needs networks of the same horizons, at least one; these have {horizons}.")
    if garch == 0:
        return training.Ensemble(networks)
    own = Garch(o=1, errors="skewed_t", refit_every=250, spec=WindowSpec(horizons=horizons.pop()))
    return training.Ensemble([*networks, own], [*[(1 - garch) / len(networks)] * len(networks), garch])


def default_encoder(spec: WindowSpec) -> Recurrent:
    """The encoder of the default forecaster, for windows of any features."""
    return Recurrent(len(spec.features), input_noise=0.1)


def default_schedule() -> "Schedule":
    """The learning rates of the default forecaster."""
    from qtorch.training import Schedule

    return Schedule(3e-3, warm_up=0.1, final=0.01)
