"""The one LightningModule of all forecasters."""

from collections.abc import Iterable
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qtorch.data.errors import DataError, listing
from qtorch.data.panel import Panel
from qtorch.data.window import Window, WindowSpec
from qtorch.data.windows import WindowSource
from qtorch.distributions import Affine
from qtorch.forecast import Forecast


class Network(nn.Module):
    """An encoder and a head's parameters: what is exported or compiled, and knows no Lightning."""

    head: Any  # a module with parameters_of(hidden) and distribution(*parameters)

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(
        self, inputs: Float[Tensor, "B C F"], mask: Bool[Tensor, "B C"], every_position: bool = False
    ) -> tuple[Float[Tensor, "B *C H"], ...]:
        """The head's parameter tensors from the window's last session, or from each of its sessions."""
        hidden = self.encoder(inputs, mask)
        return self.head.parameters_of(hidden if every_position else hidden[:, -1])


class Forecaster(lightning.LightningModule):
    """Maps windows to distributions of returns: an encoder, a head, and how to train them.

    Trained by maximum likelihood over the observed targets. Returns are divided by each window's causal scale, so a
    model pooled over all assets sees them alike; the distribution is mapped back by an affine transform.

    Args:
        encoder: a module `(inputs [B, C, F], mask [B, C]) -> hidden [B, C, D]`.
        head: a module with `parameters_of(hidden)` and `distribution(*parameters)`.
        spec: the windows it is fed.
        learning_rate: the highest of AdamW's one-cycle schedule.
        weight_decay: AdamW's.

    Raises:
        ValueError: the encoder or head does not fit the windows.

    References:
        Loshchilov and Hutter (2019) for AdamW; Smith and Topin (2018) for the schedule.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        spec: WindowSpec | None = None,
        *,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.network = Network(encoder, head)
        self.spec = WindowSpec() if spec is None else spec
        given = (getattr(encoder, "in_features", None), getattr(head, "horizons", None))
        for name, has, needs in zip(
            ("encoder's in_features", "head's horizons"),
            given,
            (len(self.spec.features), self.spec.horizons),
            strict=True,
        ):
            if has is not None and has != needs:
                raise ValueError(f"the {name} are {has}, but the windows have {needs}. Make both from one WindowSpec.")
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._validation = [0.0, 0.0]

    def forward(self, window: Window) -> Affine:
        """The distribution of simple returns, batch shape `[B, H]` or, as the window's target, `[B, C, H]`."""
        every_position = window.target.ndim == 3
        parameters = self.network(window.inputs, window.mask, every_position)
        return Affine(self.network.head.distribution(*parameters), 0.0, window.scale.unsqueeze(-1))

    def negative_log_likelihood(self, window: Window) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The weighted sum over the observed targets, in nats, of returns in units of the scale; and the weights' sum.

        A horizon of h sessions has weight 1/h, because h consecutive targets overlap and say little more than one.
        """
        scale = window.scale.unsqueeze(-1)
        log_prob = self(window).log_prob(window.target) + torch.log(scale)
        weight = window.target_mask / torch.tensor(self.spec.horizons, device=log_prob.device)
        return -(weight * torch.where(window.target_mask, log_prob, 0.0)).sum(), weight.sum()

    def training_step(self, window: Window, index: int) -> Tensor:
        """Mean negative log-likelihood over the observed targets."""
        total, weight = self.negative_log_likelihood(window)
        loss = total / weight.clamp(min=1)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(window))
        return loss

    def validation_step(self, window: Window, index: int) -> None:
        """Adds to the epoch's mean over all observed targets."""
        total, weight = self.negative_log_likelihood(window)
        self._validation = [self._validation[0] + total.item(), self._validation[1] + weight.item()]

    def on_validation_epoch_end(self) -> None:
        """Logs the mean of the epoch, over all processes."""
        sums = torch.tensor(self._validation, dtype=torch.float64, device=self.device)
        total, weight = self.trainer.strategy.reduce(sums, reduce_op="sum")
        self._validation = [0.0, 0.0]
        self.log("val_loss", (total / weight.clamp(min=1.0)).float(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle schedule over the planned number of steps."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.98)
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.2,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def forecast(
        self,
        panel: Panel,
        dates: Iterable[str | pd.Timestamp] | str | pd.Timestamp,
        *,
        min_history: int = 60,
        stale: int = 5,
        batch_size: int = 1024,
        source: WindowSource | None = None,
    ) -> Forecast:
        """Forecasts every asset of a panel at some of its dates, from what the panel's rows at them know.

        An asset whose market is closed at a date, or which has no price there, is forecast from its last session.

        Args:
            panel: the market.
            dates: as-of dates, one or many.
            min_history: returns that an asset needs; with fewer it has no forecast.
            stale: after this many sessions of its exchange without a price an asset has no forecast.
            batch_size: windows evaluated at once.
            source: the panel's windows, if they have been made already.

        Raises:
            DataError: a date is not among the panel's, or no asset can be forecast at any.
        """
        dates = pd.DatetimeIndex(np.atleast_1d(np.asarray(dates, dtype="M8[us]")))
        rows = np.array([panel.row(date) for date in dates])
        source = WindowSource(panel, self.spec) if source is None else source
        entries, valid = source.at(rows, min_history, stale)
        if not valid.any():
            raise DataError(
                f"nothing to forecast at {listing(f'{date:%Y-%m-%d}' for date in dates)}: no asset has {min_history} "
                f"returns and a price within its last {stale} sessions. Give more history, or lower min_history."
            )
        training = self.network.training
        self.network.eval()
        batches = []
        for part in entries[valid].split(batch_size):
            window = source.gather(part).to(self.device)
            batches.append((*self.network(window.inputs, window.mask), window.scale.unsqueeze(-1)))
        self.network.train(training)
        D, N = valid.shape
        spread = []
        for values in zip(*batches, strict=True):
            joined = torch.cat(values).to(valid.device)
            dense = joined[:1].expand(D, N, -1).clone()  # a placeholder where there is no forecast
            dense[valid] = joined
            spread.append(dense.movedim(-1, 1))
        *parameters, scale = spread
        distribution = Affine(
            self.network.head.distribution(*parameters), 0.0, scale.expand(D, len(self.spec.horizons), N)
        )
        at = torch.as_tensor(rows, device=panel.state.device)
        return Forecast(distribution, valid, panel.state[at], dates, panel.assets, self.spec.horizons)
