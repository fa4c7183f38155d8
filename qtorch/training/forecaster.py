"""The one LightningModule of all forecasters."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import lightning
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from qtorch.data.datamodule import DataModule
from qtorch.data.errors import listing
from qtorch.data.panel import Panel
from qtorch.data.panel_windows import PanelWindowSource
from qtorch.data.rows import Dates
from qtorch.data.sampling import Source
from qtorch.data.window import Window, WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Posterior
from qtorch.distributions.checks import require
from qtorch.distributions.joint import rescaled
from qtorch.errors import ArgumentError, NonFiniteError
from qtorch.forecast import Forecast
from qtorch.heads import AttentionalCopulaHead, CopulaHead, CouplingFlowHead, EachDraw, Ensemble
from qtorch.nn.penalties import penalized
from qtorch.training.clipping import clip_members
from qtorch.training.forecasting import forecast
from qtorch.training.network import Network
from qtorch.training.objectives import LogScore, Objective
from qtorch.training.optimisation import Schedule, adamw
from qtorch.training.trained_on import TrainedOn

_Forecaster = TypeVar("_Forecaster", bound="Forecaster")
_OF_FIT = {  # arguments of DataModule that `fit` makes itself
    "source": "fit makes the windows of the panel; for others call qtorch.training.fit(model, DataModule(...))",
    "until": "give fit(panel, until=...)",
    "validation_start": "give fit(panel, validation_start=...)",
}


class Forecaster(lightning.LightningModule):
    """Maps windows to distributions of returns: an encoder, a head, and how to train them.

    Returns are divided by each window's causal scale, so a model pooled over all assets sees them alike, and losses
    are of returns in that unit, but for objectives `in_returns`; the distribution is mapped back by an affine
    transform. A horizon of h sessions has weight 1/h in the loss, because h consecutive targets overlap and say little
    more than one.

    Where a module of the network has a method `penalty`, such as the divergence of a variational posterior from its
    prior, training adds it over the number of observed targets, so that the loss times that number is minus the
    evidence lower bound.

    Args:
        encoder: maps windows to hidden states, in asset or in panel layout; see `qtorch.training.Network`.
        head: maps hidden states to distributions; see there too.
        spec: the windows it is fed.
        learning_rate: the peak of the default schedule.
        weight_decay: AdamW's, on matrices that are no embeddings.
        schedule: of the learning rate, instead of `learning_rate`.
        objective: what training minimises; `LogScore` by default, which is maximum likelihood.
        augmentation: changes training windows before the model sees them, such as `HideInputs`.
        observations: what penalties are divided by; None asks the data, `DataModule.observations`.

    Attributes:
        trained_on: what each fit has shown it, in their order; `qtorch.deploy.save` keeps it.

    Raises:
        ValueError: the encoder or head does not fit the windows, or there are two learning rates.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        spec: WindowSpec | None = None,
        *,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        schedule: Schedule | None = None,
        objective: Objective | None = None,
        augmentation: Callable[[Window], Window] | None = None,
        observations: float | None = None,
    ) -> None:
        super().__init__()
        self.network = Network(encoder, head)
        self.spec = WindowSpec() if spec is None else spec
        for name, has, needs in (
            ("encoder's in_features", getattr(encoder, "in_features", None), len(self.spec.features)),
            ("encoder's context", getattr(encoder, "context", None), self.spec.context),
            ("head's horizons", getattr(head, "horizons", None), self.spec.horizons),
        ):
            if has is not None and has != needs:
                raise ArgumentError(
                    f"the {name} are {has}, but the windows have {needs}. Make both from one WindowSpec."
                )
        if self.network.layout not in ("asset", "panel"):
            raise ArgumentError(f"an encoder's layout is asset or panel, not {self.network.layout!r}.")
        if isinstance(head, AttentionalCopulaHead | CopulaHead):
            raise ArgumentError(
                f"a {type(head).__name__} gives a copula, and no law of returns. Give "
                f"JointHead(marginals, {type(head).__name__}(...))."
            )
        if self.network.joint and self.network.layout != "panel":
            raise ArgumentError(
                f"a {type(head).__name__} needs an encoder in panel layout, but {type(encoder).__name__} sees one "
                "asset at a time. Give one such as PanelTransformer."
            )
        _check_draws(encoder, head)
        if learning_rate is not None and schedule is not None:
            raise ArgumentError("the schedule has a learning rate of its own. Give one of schedule and learning_rate.")
        default = Schedule() if learning_rate is None else Schedule(learning_rate)
        self.schedule = default if schedule is None else schedule
        self.weight_decay = weight_decay
        self.objective = LogScore() if objective is None else objective
        if isinstance(head, CouplingFlowHead) and any(
            not isinstance(score, LogScore) for _, score in self.objective.terms
        ):
            raise ArgumentError(
                "a CouplingFlowHead's law has no marginals in closed form, and trains by LogScore alone. For "
                f"{self.objective}, give a JointHead of marginals and a copula."
            )
        self.augmentation = augmentation
        self.observations = observations
        self.trained_on: tuple[TrainedOn, ...] = ()
        self._observed = observations
        self._validation: dict[str, Tensor] = {}

    def check(self, data: DataModule) -> None:
        """Refuses windows that this model can't be trained on.

        Raises:
            ValueError: they are of another spec or layout, or ask for a forecast from every position of an encoder
                that has none.
        """
        if data.spec != self.spec:
            raise ArgumentError(f"the data have windows {data.spec}, but the model is fed {self.spec}.")
        has = "panel" if isinstance(data.source, PanelWindowSource) else "asset"
        encoder, wants = type(self.network.encoder).__name__, self.network.layout
        if has != wants:
            kind = "PanelWindowSource" if wants == "panel" else "WindowSource"
            raise ArgumentError(
                f"{encoder} is fed windows in {wants} layout, but the data are in {has} layout. "
                f"Give DataModule(panel, source={kind}(panel, spec), ...)."
            )
        if data.every_position and not self.network.causal:
            raise ArgumentError(
                f"{encoder} is not causal: it forecasts from a window's last position alone, and can't be trained on "
                "every position. Give DataModule(..., every_position=False)."
            )

    def forward(self, window: Window) -> Distribution:
        """The distribution of simple returns, with the window's target's shape for batch and event shapes."""
        return rescaled(self._standardised(window), window.scale.unsqueeze(self._horizon_axis))

    def losses(self, window: Window, objective: Objective | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """An objective (`loss`) and every score in it for each target, and the targets' weights.

        In training a `Posterior` is scored draw by draw, and the scores averaged: each member of an ensemble learns as
        if it were alone, and the expected log likelihood of a variational posterior is what its bound asks for. Else
        the mixture is scored, which is what is forecast.

        Args:
            window: a batch.
            objective: the model's own by default.

        Returns:
            Losses by name and weights, all of the shape of the window's target. Losses are 0 where a target is masked;
            so are weights, which are one over the horizon elsewhere. Of a joint law both are without the assets' axis:
            losses per observed asset, and weights of their number over the horizon.
        """
        objective = self.objective if objective is None else objective
        distribution = self._standardised(window)
        scale = window.scale.unsqueeze(self._horizon_axis)
        outcomes = window.target / scale
        with torch.autocast(outcomes.device.type, enabled=False):
            scored = _mean_over_draws if self.training else _of_the_law
            scores = {
                score.name: (weight, scored(score, distribution, outcomes, window.target_mask, scale))
                for weight, score in objective.terms
            }
        loss = torch.stack([weight * value for weight, value in scores.values()]).sum(0)
        horizons = torch.tensor(self.spec.horizons, dtype=torch.float32, device=outcomes.device)
        if self.network.joint:
            weight = window.target_mask.sum(-1) / horizons
        else:
            weight = window.target_mask / (horizons if self._horizon_axis == -1 else horizons.unsqueeze(-1))
        return {"loss": loss} | {name: value for name, (_, value) in scores.items()}, weight

    def mean_loss(self, window: Window) -> Float[Tensor, ""]:
        """The weighted mean of the objective over the window's observed targets."""
        return _mean(*self.losses(window))

    def training_step(self, window: Window, index: int) -> Tensor:
        """The weighted mean of the objective over the batch's observed targets, and the network's penalties' share.

        Raises:
            FloatingPointError: it is not finite.
            ValueError: the network has penalties, and nothing tells the number of observed targets.
        """
        losses, weight = self.losses(window if self.augmentation is None else self.augmentation(window))
        loss = _mean(losses, weight) + self._penalty()
        self._refuse_non_finite("training", losses["loss"], window)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(window))
        return loss

    def on_fit_start(self) -> None:
        """Refuses data that the model can't be trained on."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DataModule):
            self.check(data)
            if self.observations is None and any(penalized(self.network)):
                self._observed = data.observations()

    def on_validation_epoch_start(self) -> None:
        """Begins the sums of the epoch."""
        self._validation = {}

    def validation_step(self, window: Window, index: int) -> None:
        """Adds to the epoch's means over all observed targets.

        Raises:
            FloatingPointError: the objective is not finite.
        """
        losses, weight = self.losses(window)
        self._refuse_non_finite("validation", losses["loss"], window)
        for name, value in (*losses.items(), ("weight", torch.ones_like(weight))):
            self._validation[name] = self._validation.get(name, 0.0) + (weight * value).double().sum()

    def on_validation_epoch_end(self) -> None:
        """Logs the means of the epoch over all processes: ``val_loss``, and ``val_`` and the name of each score."""
        sums = self.trainer.strategy.reduce(torch.stack(list(self._validation.values())), reduce_op="sum")
        means = dict(zip(self._validation, sums / sums[-1].clamp(min=1.0), strict=True))
        for name in means.keys() - {"weight"}:
            self.log(f"val_{name}", means[name].float(), prog_bar=name == "loss")

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and a cosine over the planned number of steps."""
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, rate = adamw(self, self.schedule, self.weight_decay, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients' norm, that of each member of an ensemble by itself, so that none slows the others."""
        by_norm = gradient_clip_val and gradient_clip_algorithm in (None, "norm")
        if not by_norm or not clip_members(self, float(gradient_clip_val or 0.0)):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def forecast(
        self,
        panel: Panel,
        dates: Dates,
        *,
        min_history: int = 60,
        stale: int = 5,
        batch_size: int = 1024,
        source: Source | None = None,
        compile: bool = False,
    ) -> Forecast:
        """Forecasts every asset of a panel at some of its dates, from what the panel's rows at them know.

        An asset whose market is closed at a date, or which has no price there, is forecast from its last session.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            min_history: returns that an asset needs; with fewer it has no forecast.
            stale: after this many sessions of its exchange without a price an asset has no forecast.
            batch_size: windows of one asset evaluated at once.
            source: the panel's windows in either layout, if they have been made already.
            compile: compile the network, in place, for this forecast and later ones. It takes some seconds once, and
                pays for many windows. A GRU of one layer forecasts uncompiled all the same, with a warning: its windows
                share the work of their sessions, which is faster.

        Raises:
            DataError: there is no date, one is not among the panel's, or no asset can be forecast at any.
            ValueError: the source is of another panel or other windows.
        """
        options: Any = {"batch_size": batch_size, "source": source, "compile": compile}
        return forecast(self.network, self.spec, panel, dates, min_history, stale, **options)

    def fit(
        self: _Forecaster,
        panel: Panel,
        *,
        until: str | pd.Timestamp | None = None,
        validation_start: str | pd.Timestamp | None = None,
        data: Mapping[str, Any] | None = None,
        **training: Any,
    ) -> _Forecaster:
        """Trains the model on a panel's past: a `DataModule` and `qtorch.training.fit` in one call.

        Nothing after `until` is seen, neither as a target nor in any other way. A second fit goes on from the weights
        of the first; make a fresh model to begin anew. A model that was never fit forecasts all the same, as its head
        starts.

        Args:
            panel: the market.
            until: the last date that may be known, which need not be a session; the panel's last by default.
            validation_start: the first as-of date for validation, which decides when training stops; None has none, and
                trains on all for all epochs.
            data: further arguments of `DataModule`, such as ``{"batch_size": 128, "half_life": 500.0, "seed": 1}``.
                Where the encoder is not causal, `every_position` is False unless it is given. Dates and windows are
                the fit's own: ``source``, ``until`` and ``validation_start`` are refused here.
            **training: further arguments of `qtorch.training.fit`, such as `max_epochs`, `seed`, `checkpoints`,
                `accelerator`, `devices` and `precision`, and those of `lightning.Trainer`, such as `callbacks` and
                `logger`.

        Returns:
            Itself, in its best state and in evaluation mode; the Trainer that was used is its `trainer`, and what was
            seen is added to its `trained_on`.

        Raises:
            DataError: there are too few rows, or the dates are out of order.
            ValueError: the model can't be trained so.
            NonFiniteError: a loss is not finite; a FloatingPointError.

        Example:
            >>> from qtorch.data import load_sample
            >>> from qtorch.models import default_forecaster
            >>> panel = Panel.from_frame(load_sample().query("date > '2021'")).select(["AAPL", "EURUSD"])
            >>> model = default_forecaster(panel, horizons=(1,))
            >>> model.fit(panel, until="2022-06-30", max_epochs=1).predict(panel)
            Forecast(1 date 2022-12-28, 2 assets, horizons 1; 2 of 2 forecast)
        """
        from qtorch.training.fit import fit

        for name, instead in _OF_FIT.items():
            require(name not in (data or {}), "data", f"{{{name!r}: ...}}", instead)
        seen = panel if until is None else panel.until(panel.dates[panel.row_until(until)])
        kind = PanelWindowSource if self.network.layout == "panel" else WindowSource
        options = {"every_position": self.network.causal} | dict(data or {})
        windows = DataModule(seen, source=kind(seen, self.spec), validation_start=validation_start, **options)
        fit(self, windows, **training)
        return self

    def predict(
        self,
        panel: Panel,
        dates: Dates | None = None,
        **options: Any,
    ) -> Forecast:
        """Forecasts every asset of a panel: `forecast`, as the method that every model has.

        Args:
            panel: the market.
            dates: as-of dates, one or many; the panel's last by default.
            **options: as of `forecast`, whose errors are raised too.
        """
        return self.forecast(panel, panel.dates[-1] if dates is None else dates, **options)

    def _penalty(self) -> Tensor | float:
        """The network's penalties over the number of observed targets."""
        penalties = [part.penalty() for part in penalized(self.network)]  # type: ignore[operator]
        if not penalties:
            return 0.0
        if self._observed is None:
            raise ArgumentError(
                "the network's penalties are divided by the number of observed training targets, each of a horizon of "
                "h sessions counted 1/h. Train on a DataModule, which knows it, or give Forecaster(observations=...)."
            )
        return torch.stack(penalties).sum() / self._observed

    @property
    def _horizon_axis(self) -> int:
        """Of targets: before the assets in panel layout, else the last."""
        return -1 if self.network.layout == "asset" else -2

    def _standardised(self, window: Window) -> Distribution:
        """The distribution of returns in units of the scale, with the window's target's shape for a batch shape."""
        parameters = self._of_law(window)
        try:
            return self.network.head.distribution(*parameters)
        except (ValueError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            # Laws refuse parameters that are no numbers; in a training those tell of its weights.
            if self._trainer is not None:
                stage = "training" if self.training else "validation"
                self._refuse_non_finite(stage, _undefined(parameters, window), window)
            raise

    def _of_law(self, window: Window) -> tuple[Tensor, ...]:
        """Those of the law, with the window's target's shape before dimensions of their own."""
        every_position = window.target.ndim == window.inputs.ndim
        parameters = self.network(window.inputs, window.mask, every_position)
        if self.network.layout == "panel":
            last = window.target.ndim - 1  # the horizons' axis, whatever stands behind it
            parameters = tuple(parameter.movedim(last, last - 1) for parameter in parameters)
        return parameters

    def _refuse_non_finite(self, stage: str, loss: Tensor, window: Window) -> None:
        """Raises an error that names the batch, because a step on such a loss makes every weight NaN."""
        bad = ~torch.isfinite(loss)
        if not bad.any():
            return
        if bad.ndim < window.target_mask.ndim:  # of a joint law: any observed asset may be the cause
            bad = bad.unsqueeze(-1) & window.target_mask
        if self.network.layout == "panel":
            columns = bad.flatten(end_dim=-2).any(0).nonzero().flatten()
        else:
            columns = window.asset_index[bad.flatten(1).any(1)].unique()
        names = getattr(getattr(getattr(self.trainer, "datamodule", None), "source", None), "panel", None)
        assets = [str(int(n)) if names is None else names.assets[int(n)] for n in columns]
        every = "all" if bad.sum() == window.target_mask.sum() else "some"
        raise NonFiniteError(
            f"the {stage} loss is not finite at epoch {self.current_epoch}, step {self.global_step}: {int(bad.sum())} "
            f"targets, {every} of the batch, of the assets {listing(assets)}. If all are, the weights are not finite: "
            "lower the learning rate. Else look at these assets' prices and inputs, and at the head's bounds."
        )


def _check_draws(encoder: nn.Module, head: nn.Module) -> None:
    """Refuses a head that does not read as many hidden states as the encoder gives."""
    has, reads = getattr(encoder, "draws", None), isinstance(head, EachDraw)
    if isinstance(head, Ensemble) and not head.shared:
        reads = True
        if has is not None and has != head.draws:
            raise ArgumentError(f"the encoder has {has} members, but the head {head.draws}. Give both the same number.")
    if reads and has is None:
        raise ArgumentError(
            f"the {type(head).__name__} reads several hidden states, and a {type(encoder).__name__} gives one. Give "
            "an EncoderEnsemble, or an Ensemble of heads with shared=True."
        )
    if has is not None and not reads:
        raise ArgumentError(
            f"a {type(encoder).__name__} gives {has} hidden states, and a {type(head).__name__} reads one. Give "
            "heads.Ensemble(head, members), or heads.EachDraw(head) for one head that all share."
        )


def _undefined(parameters: tuple[Tensor, ...], window: Window) -> Tensor:
    """NaN at the observed targets of whose law a parameter is not finite, else 0, `[*target]`."""
    shape = window.target.shape
    bad = torch.zeros_like(window.target_mask)
    for parameter in parameters:
        wrong = ~torch.isfinite(parameter)
        of_each = wrong.shape[: len(shape)] == shape
        bad = bad | (wrong.reshape(*shape, -1).any(-1) if of_each else wrong.any())
    return torch.where(bad & window.target_mask, torch.nan, 0.0)


def _of_the_law(score: Objective, law: Distribution, outcomes: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    if score.in_returns:
        return score(rescaled(law, scale), scale * outcomes, mask)
    return score(law, outcomes, mask)


def _mean_over_draws(score: Objective, law: Distribution, outcomes: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    if not isinstance(law, Posterior):
        return _of_the_law(score, law, outcomes, mask, scale)
    shape = law.components.batch_shape
    each = _mean_over_draws(score, law.components, *(x.unsqueeze(-1).expand(shape) for x in (outcomes, mask, scale)))
    return (law.weights * each).sum(-1)


def _mean(losses: dict[str, Tensor], weight: Tensor) -> Float[Tensor, ""]:
    return ((weight * losses["loss"]).sum() / weight.sum().clamp(min=1)).float()
