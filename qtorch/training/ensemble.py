"""Several models as one forecaster: the mixture of what they forecast."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import pandas as pd
import torch

from qtorch.calibration.calibrated import require_raw
from qtorch.data.panel import Panel
from qtorch.data.rows import Dates
from qtorch.data.sampling import Source
from qtorch.distributions import JointMixture, Posterior, stack
from qtorch.errors import ArgumentError
from qtorch.forecast import Forecast
from qtorch.models.baselines.baseline import Baseline


@runtime_checkable
class Model(Protocol):
    """What an ensemble's members do, and an ensemble itself."""

    def forecast(
        self,
        panel: Panel,
        dates: Dates,
        *,
        source: Any = None,
    ) -> Forecast:
        """Forecasts every asset of a panel at some of its dates."""
        ...


_Ensemble = TypeVar("_Ensemble", bound="Ensemble")


class Ensemble:
    """Models, trained from several seeds or of several kinds, which forecast the mixture of their laws.

    Its value at risk and expected shortfall are those of the mixture, not means over members: what members disagree
    about widens the forecast. Joint laws of all members are mixed as joint laws: a scenario is one member's.

    Args:
        models: at least one, of the same horizons: forecasters, baselines such as `Garch`, ensembles.
        weights: of their laws, in any scale; equal by default.

    Raises:
        ValueError: there is no model, or not one weight of 0 or more for each.

    References:
        Stone (1961), The opinion pool, Annals of Mathematical Statistics 32; Hall and Mitchell (2007), Combining
        density forecasts, International Journal of Forecasting 23.
    """

    def __init__(self, models: Sequence[Model], weights: Sequence[float] | None = None) -> None:
        if not models:
            raise ArgumentError("an ensemble needs at least one model.")
        self.models = tuple(models)
        self.weights = _weights(weights, len(models))

    def __repr__(self) -> str:
        return f"Ensemble({list(self.models)}, {list(self.weights)})"

    def forecast(
        self,
        panel: Panel,
        dates: Dates,
        *,
        source: Source | None = None,
        compile: bool = False,
    ) -> Forecast:
        """Forecasts every asset of a panel at some of its dates; arguments and errors as of `Forecaster.forecast`.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            source: the panel's windows, if they have been made already and are those of all members.
            compile: compile the networks of the members that have one, as of `Forecaster.forecast`.

        Raises:
            ValueError: the members' forecasts can't be mixed, see `mixed`; or no member has a network to compile.
        """
        networks = [compile and _is_trained(model) for model in self.models]
        if compile and not any(networks):
            raise ArgumentError("compile=True: no member of this ensemble has a network, so leave it out.")
        days = list(panel.dates[panel.rows(dates)])  # once, of dates that may be an iterator
        options: list[dict[str, Any]] = [{"compile": True} if network else {} for network in networks]
        laws = [
            model.forecast(panel, days, source=source, **more) for model, more in zip(self.models, options, strict=True)
        ]
        return mixed(laws, self.weights)

    def fit(self: _Ensemble, panel: Panel, *, until: str | pd.Timestamp | None = None, **training: Any) -> _Ensemble:
        """Fits every member on a panel's past: trains those that have something to train.

        Members made one after the other begin with weights of their own and draw dropout and noise of their own; with
        `seed` they would share the noise.

        Args:
            panel: the market.
            until: the last date that may be known, which need not be a session; the panel's last by default.
            **training: further arguments of the members' own `fit`, such as `Forecaster.fit`, for all that are no
                baselines. Of a folder for `checkpoints` each member has a folder of its own, ``member-0`` and so on;
                of `callbacks` each has copies of its own, in its `trainer.callbacks` afterwards.

        Raises:
            DataError: there are too few rows, or the dates are out of order.
            ValueError: a member can't be trained so, there are options and no member to train, or there is one logger
                for all.
            FloatingPointError: a loss is not finite.
        """
        trained = [k for k, model in enumerate(self.models) if _is_trained(model)]
        if training and not trained:
            raise ArgumentError(f"{', '.join(training)}: no member of this ensemble is trained, so leave it out.")
        if len(trained) > 1 and not isinstance(training.get("logger"), bool | None):
            raise ArgumentError(
                "logger: one logger would mix the members' numbers. Fit each member with one of its own."
            )
        for k, model in enumerate(self.models):
            options = dict(training) if k in trained else {}
            if options.get("checkpoints") is not None:
                options["checkpoints"] = Path(options["checkpoints"]) / f"member-{k}"
            if "callbacks" in options:
                options["callbacks"] = copy.deepcopy(options["callbacks"])
            if hasattr(model, "fit"):
                model.fit(panel, until=until, **options)
        return self

    def predict(
        self,
        panel: Panel,
        dates: Dates | None = None,
        *,
        source: Source | None = None,
        compile: bool = False,
    ) -> Forecast:
        """Forecasts every asset of a panel: `forecast`, as the method that every model has.

        Args:
            panel: the market.
            dates: as-of dates, one or many; the panel's last by default.
            source: as of `forecast`, whose errors are raised too. Which assets have enough history is each member's
                to say: baselines are made with `min_history` and `stale`, forecasters take their defaults.
            compile: as of `forecast`.
        """
        return self.forecast(panel, panel.dates[-1] if dates is None else dates, source=source, compile=compile)


def mixed(forecasts: Sequence[Forecast], weights: Sequence[float] | None = None) -> Forecast:
    """The mixture of several forecasts of the same dates, assets and horizons; of one, itself.

    There is a forecast where all have one.

    Args:
        forecasts: at least one.
        weights: of their laws, in any scale; equal by default.

    Raises:
        ValueError: they are of different dates, assets or horizons, some are joint and others are not, some are
            corrected by a calibrator, or there is not one weight of 0 or more for each.
    """
    first, shares = forecasts[0], _weights(weights, len(forecasts))
    for other in forecasts[1:]:
        for name in ("dates", "assets", "horizons"):
            a, b = getattr(first, name), getattr(other, name)
            if len(a) != len(b) or any(x != y for x, y in zip(a, b, strict=True)):
                raise ArgumentError(f"forecasts of the same {name} are mixed, but some are of others.")
    if len(forecasts) == 1:
        return first
    for forecast in forecasts:
        require_raw(forecast, "a mixture")
    laws = [forecast.distribution for forecast in forecasts]
    joint = [bool(law.event_shape) for law in laws]
    if any(joint) and not all(joint):
        raise ArgumentError(
            "joint forecasts are mixed with joint forecasts alone, and some of these have marginals alone. Give those "
            "a dependence, forecast.with_copula(...), or mix forecasts of marginals and give the mixture a copula."
        )
    mask = reduce(torch.logical_and, (forecast.mask for forecast in forecasts))
    probabilities = torch.tensor(shares, dtype=torch.float64, device=first.mask.device)
    law = JointMixture(probabilities, laws) if any(joint) else Posterior(probabilities, stack(laws))
    return replace(first, distribution=law, mask=mask)


def _is_trained(model: Model) -> bool:
    """Whether a model, or a member of an ensemble, has something to train."""
    if isinstance(model, Ensemble):
        return any(map(_is_trained, model.models))
    return hasattr(model, "fit") and not isinstance(model, Baseline)


def _weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """One weight a model."""
    if weights is None:
        return (1.0,) * count
    if len(weights) != count or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ArgumentError(f"{count} models need as many weights of 0 or more, not all 0; given are {list(weights)}.")
    return tuple(map(float, weights))
