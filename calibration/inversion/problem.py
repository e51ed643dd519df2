"""The one cost that all methods minimise: parameters in latent space -> residuals -> cost.

cost(u) = 1/2 |data residual|^2 + 1/2 |prior residual|^2, in one of two forms:
  likelihood  data residual = L^-1 (y - f(u)), L L' the error model's covariance; prior residual = u - u_prior
              (minus the log posterior up to a constant)
  mse         data = mean squared error of the standardised flux, prior = lambda x mean squared distance from the
              prior in scaled parameter space (the contract's loss; no posterior)
u holds the free parameters in latent units, then one offset a target when the fit may carry them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from calibration.common.command_line import UserError
from calibration.inversion.data import Observations, Stretch, combine_fluxes, day_index
from calibration.inversion.error_model import ErrorModel
from calibration.inversion.latent_map import LatentMap

DAYS_PER_BATCH = 150_000  # emulator days in one forward pass: bounds the memory (about 2 GB at hidden size 128)


@dataclass(frozen=True)
class DailyBias:
    """By what the emulator errs on average on each day, whatever the parameters: it is taken off its predictions."""

    first: np.datetime64  # day of row 0
    flux: torch.Tensor  # (day, 4) Mg C ha-1 day-1, emulator - process model

    def on(self, dates: np.ndarray) -> torch.Tensor:
        """The bias of the days `dates` (day,): (day, 4)."""
        return self.flux[torch.as_tensor(day_index(dates, self.first))]


class Forward:
    """The frozen emulator over the stretches: physical parameters -> fluxes of every day, in one batch.

    bias: taken off the fluxes, or None. memory_days: of a stretch's context, those that the model runs over; the days
    before them are behind the prepared columns alone. None: all.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        static_mean,
        static_scale,
        stretches: Sequence[Stretch],
        device="cpu",
        bias: DailyBias | None = None,
        memory_days: int | None = None,
    ) -> None:
        self.model, self.device = model, torch.device(device)
        self.mean = torch.as_tensor(np.asarray(static_mean, dtype=np.float64))
        self.scale = torch.as_tensor(np.asarray(static_scale, dtype=np.float64))
        self.stretches = list(stretches)
        self.bias = None if bias is None else [bias.on(stretch.dates) for stretch in self.stretches]
        self.groups: dict[tuple[int, int], list[int]] = {}  # (context, days) -> indices of stretches of that shape
        for i, stretch in enumerate(self.stretches):
            self.groups.setdefault((stretch.context, stretch.days), []).append(i)
        prepare = getattr(model, "prepare_days", lambda days, dates: days)  # once for all the calls with the same days
        self.weather = {}
        for shape, members in self.groups.items():
            dynamic = np.stack([self.stretches[i].dynamic for i in members])
            dates = [self.stretches[i].all_dates for i in members]
            dates = None if any(known is None for known in dates) else np.stack(dates)
            days = prepare(torch.as_tensor(dynamic, dtype=torch.float32, device=self.device), dates)
            forgotten = 0 if memory_days is None else max(0, shape[0] - memory_days)
            self.weather[shape] = days[:, forgotten:]

    def __call__(self, physical: torch.Tensor) -> list[torch.Tensor]:
        """physical (batch, parameter) -> a list over stretches of (batch, day, 4) Mg C ha-1 day-1, float64."""
        static = ((physical.to(torch.float64) - self.mean) / self.scale).to(torch.float32).to(self.device)
        result: list[torch.Tensor] = [None] * len(self.stretches)  # type: ignore[list-item]
        for shape, members in self.groups.items():
            weather = self.weather[shape]
            days = weather.shape[1]
            rows = max(1, DAYS_PER_BATCH // (days * len(members)))
            parts = [self._run(static[k : k + rows], weather, days - shape[1]) for k in range(0, len(static), rows)]
            fluxes = torch.cat(parts).to("cpu", torch.float64)
            for j, i in enumerate(members):
                result[i] = fluxes[:, j] if self.bias is None else fluxes[:, j] - self.bias[i]
        return result

    def _run(self, static: torch.Tensor, weather: torch.Tensor, context: int) -> torch.Tensor:
        """static (batch, parameter) scaled, weather (stretch, days, feature) -> (batch, stretch, day, 4)."""
        count = len(weather)
        if count == 1:
            return self.model.simulate(static, weather[0], context)[:, None]
        rows = static.repeat_interleave(count, dim=0)
        tiled = weather.repeat(len(static), 1, 1)
        fluxes = self.model.simulate(rows, tiled, context)
        return fluxes.reshape(len(static), count, *fluxes.shape[1:])


@dataclass
class InversionProblem:
    """Residuals, Jacobian and cost of one inversion; everything of shape (start, ...) is evaluated in one batch."""

    forward: Forward
    observations: Observations
    latent: LatentMap
    error_model: ErrorModel
    offset_sd: float = 0.0  # prior sd of the constant offsets, Mg C ha-1 day-1; 0 = none
    lambda_prior: float | None = None  # None = likelihood form
    use_prior: bool = True
    target_scale: np.ndarray | None = None  # (target,) standardises the mse form, Mg C ha-1 day-1
    step: float = 0.02  # finite difference in latent units

    def __post_init__(self) -> None:
        self.offsets = len(self.observations.targets) if self.offset_sd > 0 else 0
        self.prior = np.concatenate([self.latent.latent(self.latent.prior), np.zeros(self.offsets)])
        self.value = torch.as_tensor(self.observations.value)
        self.evaluations = 0
        self.set_error_model(self.error_model)

    @property
    def size(self) -> int:
        """Length of u: free parameters and offsets."""
        return len(self.prior)

    @property
    def is_likelihood(self) -> bool:
        """Whether the cost is minus a log posterior (a posterior exists)."""
        return self.lambda_prior is None and self.use_prior

    def set_error_model(self, error_model: ErrorModel) -> None:
        """Take another error model (after its unknown parts were estimated)."""
        self.error_model = error_model
        if self.lambda_prior is None:
            self.factor = torch.as_tensor(error_model.factor())
            return
        targets = self.observations.target
        counts = np.bincount(targets, minlength=len(self.observations.targets))
        scale = np.ones(len(counts)) if self.target_scale is None else np.asarray(self.target_scale)
        self.row_weight = torch.as_tensor(np.sqrt(2 * error_model.weights / counts)[targets] / scale[targets])

    # --- predictions ---------------------------------------------------------------------------------------------

    def predict(self, u: torch.Tensor) -> torch.Tensor:
        """u (batch, size) -> (batch, entry) predicted observations, Mg C ha-1 day-1, differentiable."""
        self.evaluations += len(u)
        free = len(self.latent.free)
        return self.entries(self.forward(self.latent.physical(u[:, :free])), u)

    def entries(self, fluxes: list[torch.Tensor], u: torch.Tensor) -> torch.Tensor:
        """Fluxes (batch, day, 4) of each stretch -> (batch, entry) as observed, with the offsets of u (batch, size)."""
        return self._entries(fluxes) + self._offset_entries(u[:, len(self.latent.free) :])

    def _entries(self, fluxes: list[torch.Tensor]) -> torch.Tensor:
        observations, columns = self.observations, []
        order: list[np.ndarray] = []
        for t, target in enumerate(observations.targets):
            for s, values in enumerate(fluxes):
                here = np.flatnonzero((observations.target == t) & (observations.stretch == s))
                if len(here):
                    columns.append(combine_fluxes(values, target)[:, torch.as_tensor(observations.day[here])])
                    order.append(here)
        back = np.argsort(np.concatenate(order))
        return torch.cat(columns, dim=1)[:, torch.as_tensor(back)]

    def _offset_entries(self, offsets: torch.Tensor) -> torch.Tensor | float:
        if not self.offsets:
            return 0.0
        return self.offset_sd * offsets[:, torch.as_tensor(self.observations.target)]

    def offset_values(self, u: np.ndarray) -> dict[str, float]:
        """The constant added to each target, Mg C ha-1 day-1."""
        if not self.offsets:
            return {}
        return dict(zip(self.observations.targets, self.offset_sd * u[len(self.latent.free) :], strict=True))

    # --- residuals and cost ---------------------------------------------------------------------------------------

    def whiten(self, difference: torch.Tensor) -> torch.Tensor:
        """(batch, entry) Mg C ha-1 day-1 -> residuals of unit variance (or the mse form's weighting)."""
        if self.lambda_prior is None:
            return torch.linalg.solve_triangular(self.factor, difference.T, upper=False).T
        return difference * self.row_weight

    def prior_residual(self, u: torch.Tensor) -> torch.Tensor:
        """(batch, size) -> (batch, terms)."""
        prior = torch.as_tensor(self.prior)
        if not self.use_prior:
            return u[:, :0]
        if self.lambda_prior is None:
            return u - prior
        free = len(self.latent.free)
        index = torch.as_tensor(self.latent.free)
        distance = (self.latent.physical(u[:, :free]) - torch.as_tensor(self.latent.prior))[:, index]
        scaled = torch.cat([distance / self.forward.scale[index], u[:, free:]], dim=1)
        return np.sqrt(2 * self.lambda_prior / self.size) * scaled

    def cost(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """u (batch, size) -> data and prior parts of the cost, (batch,) each, differentiable."""
        residual = self.whiten(self.value - self.predict(u))
        return 0.5 * residual.square().sum(dim=1), 0.5 * self.prior_residual(u).square().sum(dim=1)

    def jacobian(self, u: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """df/du (start, entry, size) at u (start, size), where the prediction is `predicted` (start, entry).

        Forward differences: all directions of all starts in one batch. Mg C ha-1 day-1 a latent unit.
        """
        starts, size = u.shape
        # Step towards the middle, so that a value near a bound keeps its step inside.
        direction = np.where(u > 0, -self.step, self.step)
        rows = np.repeat(u[:, None, :], size, axis=1)
        rows[:, np.arange(size), np.arange(size)] += direction
        with torch.no_grad():
            values = self.predict(torch.as_tensor(rows.reshape(starts * size, size))).numpy()
        slopes = (values.reshape(starts, size, -1) - predicted[:, None, :]) / direction[:, :, None]
        return slopes.transpose(0, 2, 1)

    def central_jacobian(self, u: np.ndarray, step: float = 0.1) -> np.ndarray:
        """df/du (entry, size) at u (size,) by central differences over a wide step: for posteriors, where the float32
        rounding of a narrow step would show.
        """
        size = len(u)
        limit = self.latent.limit
        above, below = u + step * np.eye(size), u - step * np.eye(size)
        rows = np.clip(np.concatenate([above, below]), -limit, limit)
        with torch.no_grad():
            values = self.predict(torch.as_tensor(rows)).numpy()
        width = (rows[:size] - rows[size:])[np.arange(size), np.arange(size)]
        return ((values[:size] - values[size:]) / width[:, None]).T

    def least_squares(self, u: np.ndarray, predicted: np.ndarray, jacobian: np.ndarray):
        """Stacked residual (start, entry + terms) and its Jacobian (start, entry + terms, size) at u."""
        starts, size = u.shape
        data = self.whiten(self.value - torch.as_tensor(predicted)).numpy()
        flat = torch.as_tensor(-jacobian.transpose(0, 2, 1).reshape(starts * size, -1))
        data_jacobian = self.whiten(flat).numpy().reshape(starts, size, -1).transpose(0, 2, 1)
        base = torch.as_tensor(u)
        prior = self.prior_residual(base).numpy()
        shifted = (u[:, None, :] + 1e-5 * np.eye(size)).reshape(starts * size, size)
        prior_jacobian = (
            self.prior_residual(torch.as_tensor(shifted)).numpy().reshape(starts, size, -1) - prior[:, None, :]
        ).transpose(0, 2, 1) / 1e-5
        return np.concatenate([data, prior], axis=1), np.concatenate([data_jacobian, prior_jacobian], axis=1)

    def costs(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u (batch, size) -> cost (batch,) (inf where not finite) and prediction (batch, entry)."""
        with torch.no_grad():
            base = torch.as_tensor(u)
            predicted = self.predict(base)
            residual = self.whiten(self.value - predicted)
            total = 0.5 * residual.square().sum(dim=1) + 0.5 * self.prior_residual(base).square().sum(dim=1)
        return np.nan_to_num(total.numpy(), nan=np.inf), predicted.numpy()

    def check_finite(self, predicted: np.ndarray) -> None:
        """UserError naming the window, day and target of the first non-finite prediction (entry,)."""
        bad = np.flatnonzero(~np.isfinite(predicted))
        if len(bad):
            i, observations = bad[0], self.observations
            date = observations.date[i]
            raise UserError(
                f"the emulator's {observations.targets[observations.target[i]]} is not finite at the prior: window "
                f"{observations.stretch[i]}, day {observations.day[i]}{'' if np.isnat(date) else f' ({date})'}, "
                f"{len(bad)} of {len(predicted)} values; check the scaled weather there and the prior's parameters"
            )
