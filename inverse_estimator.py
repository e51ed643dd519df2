"""StaticParameterInverter: estimate VISIT's static parameters from observed fluxes through a frozen emulator."""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.common.command_line import UserError, silent, warn
from calibration.common.parameters import ParameterSpace
from calibration.common.units import TARGETS
from calibration.emulator.error import EmulatorErrors
from calibration.inversion.config import InversionConfig, make_inversion_config
from calibration.inversion.data import Observations, Stretch, merge_stretches, observation_vector, stretch_from_arrays
from calibration.inversion.emulator_covariance import RESTLESS, is_restless, restless_errors
from calibration.inversion.error_model import ErrorModel, make_error_model
from calibration.inversion.latent_map import inversion_space, make_latent_map
from calibration.inversion.mcmc import mcmc_posterior
from calibration.inversion.methods import Fit, starting_points
from calibration.inversion.posterior import (
    Posterior,
    at_bounds,
    ensemble_posterior,
    laplace_posterior,
    mode_at,
    places_sentence,
)
from calibration.inversion.problem import DailyBias, Forward, InversionProblem
from calibration.inversion.solvers import solver_of
from calibration.inversion.tempering import tempered_posterior


@dataclass
class InversionResult:
    """Everything an inversion found; parameters physical, fluxes Mg C ha-1 day-1."""

    names: tuple[str, ...]
    prior: np.ndarray  # (parameter,)
    optimized: np.ndarray  # (parameter,)
    problem: InversionProblem
    fit: Fit
    posterior: Posterior | None  # None without a likelihood (lambda_prior given, or unconstrained)
    config: InversionConfig
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def error_model(self) -> ErrorModel:
        """The error model with its estimated parts."""
        return self.problem.error_model

    @property
    def offsets(self) -> dict[str, float]:
        """Constant added to each target, Mg C ha-1 day-1; empty without --nuisance offset."""
        return self.problem.offset_values(self.fit.u)

    @property
    def at_bounds(self) -> list[str]:
        """Parameters whose estimate lies within 2 percent of its range from a bound."""
        if self.problem.latent.space is None:
            return []
        return at_bounds(self.problem.latent, self.problem.latent.unit(self.optimized))

    @property
    def multimodal(self) -> bool:
        """Whether starts ended in places that the data cannot tell apart but that are not the same."""
        return self.posterior is not None and len(self.posterior.modes) > 1


class StaticParameterInverter:
    """Inverts observed fluxes for the emulator's static parameters. Weights and scalers are frozen, dropout is off.

    model: with simulate(static_x, dynamic_x, warmup), as model.py makes it; static_scaler, dynamic_scaler: Scaler or
    scikit-learn StandardScaler; config: InversionConfig or a mapping of its keys; param_names: in the model's order.
    space: ranges the emulator was trained on (for bounds_file: emulator); errors: the emulator's errors on unseen runs;
    bias: what it errs by on average on each day (see judgement/refine.py). memory_days: of the context, see Forward.
    say: hears what takes long, before it begins.

    With a stand-in for the emulator, whose NEP is 0.02 times the sum of its scaled parameters:

    >>> class Emulator(torch.nn.Module):
    ...     def simulate(self, static_x, dynamic_x, warmup):
    ...         nep = 0.02 * static_x.sum(dim=1)[:, None].expand(-1, dynamic_x.shape[-2] - warmup)
    ...         return torch.stack([2 * nep, 1.5 * nep, nep, 0.5 * nep], dim=-1)
    >>> from calibration.common.scalers import Scaler
    >>> static = Scaler(("a", "b"), np.array([10.0, 5.0]), np.array([1.0, 0.5]))
    >>> dynamic = Scaler(("warmth",), np.zeros(1), np.ones(1))
    >>> config = {"error_model": {"observation_sd": 0.001, "emulator": False, "discrepancy": False}}
    >>> inverter = StaticParameterInverter(Emulator(), static, dynamic, config)
    >>> context, future, observed = np.zeros((180, 1)), np.zeros((30, 1)), np.full((30, 4), 0.04)
    >>> optimized, info = inverter.invert([10.0, 5.0], context, future, observed, np.ones(30))
    >>> round(float(((optimized - static.mean) / static.scale).sum()), 2)  # 0.04 / 0.02
    2.0
    >>> bool(info["posterior"].correlation[0, 1] < -0.9)  # only their sum is known
    True
    """

    prior_draws = 200  # runs of the prior against the data, before the fit
    can_temper = True  # whether runs are cheap enough for posterior: tempered

    def __init__(
        self,
        model: torch.nn.Module,
        static_scaler: Any,
        dynamic_scaler: Any,
        config: InversionConfig | Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        param_names: Sequence[str] | None = None,
        *,
        space: ParameterSpace | None = None,
        errors: EmulatorErrors | None = None,
        config_source: str | Path | None = None,
        bias: DailyBias | None = None,
        memory_days: int | None = None,
        say: Callable[[str], object] = silent,
    ) -> None:
        self.model = model.to(device).eval()
        for weight in self.model.parameters():
            weight.requires_grad_(False)
        self.static_mean, self.static_scale = scaler_numbers(static_scaler)
        self.dynamic_mean, self.dynamic_scale = scaler_numbers(dynamic_scaler)
        self.config = make_inversion_config(config or {})
        self.device = torch.device(device)
        names = param_names if param_names is not None else getattr(static_scaler, "names", None)
        self.names = tuple(names) if names is not None else tuple(f"p{i}" for i in range(len(self.static_mean)))
        if len(self.names) != len(self.static_mean):
            raise UserError(f"{len(self.names)} parameter names for {len(self.static_mean)} scaled parameters")
        self.space, self.errors, self.config_source, self.bias = space, errors, config_source, bias
        self.memory_days, self.say = memory_days, say

    @classmethod
    def from_emulator(
        cls, emulator, config=None, config_source=None, space=None, say: Callable[[str], object] = silent
    ) -> "StaticParameterInverter":
        """The inverter of a loaded emulator (emulator.load_emulator), with its ranges (or `space`) and errors."""
        return cls(
            emulator.model, emulator.static_scaler, emulator.dynamic_scaler, config, emulator.device,
            emulator.parameter_names, space=space or emulator.space, errors=emulator.errors,
            config_source=config_source, memory_days=emulator.memory_days, say=say,
        )  # fmt: skip

    def with_seed(self, seed: int) -> "StaticParameterInverter":
        """The same inverter with other starts and samples."""
        return self.with_config(replace(self.config, seed=seed))

    def with_config(self, config: InversionConfig) -> "StaticParameterInverter":
        """The same inverter under another configuration."""
        other = copy(self)
        other.config = config
        return other

    def corrected(self, bias: DailyBias, errors: EmulatorErrors) -> "StaticParameterInverter":
        """The same inverter of an emulator whose `bias` is taken off and that errs by `errors` after that."""
        other = copy(self)
        other.bias, other.errors = bias, errors
        return other

    def forward(self, stretches: Sequence[Stretch]) -> Forward:
        """The frozen emulator over other stretches of days."""
        scaler = (self.static_mean, self.static_scale)
        return Forward(self.model, *scaler, stretches, self.device, self.bias, self.memory_days)

    def invert(
        self,
        params_prior_raw,
        dynamic_input,
        future_known,
        y_obs,
        obs_mask,
        unconstrained: bool = False,
        record_history: bool = False,
        *,
        window_start: Sequence[str] | None = None,
        obs_sd=None,
        free: Sequence[str] | None = None,
        fix: Sequence[str] = (),
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """One parameter vector for one window or a batch of n windows.

        params_prior_raw (P,) physical; dynamic_input (n,context,feature) and future_known (n,day,feature) scaled; y_obs
        (n,day,4) Mg C ha-1 day-1 in the order of units.TARGETS; obs_mask (n,day) or (n,day,4), 1 = counts; obs_sd
        (n,day) error of NEP. The leading n may be missing. With window_start (n dates) overlapping windows are merged,
        so that a day counts once. Returns params_opt_raw (P,) physical and a dictionary: loss_history, best_loss,
        initial_loss, seconds, reasons, prediction_prior and prediction_optimized (n,day,4), posterior, error_model, ...
        """
        dynamic, future, observed, mask = (_array(x) for x in (dynamic_input, future_known, y_obs, obs_mask))
        if dynamic.ndim == 2:
            dynamic, future, observed, mask = dynamic[None], future[None], observed[None], mask[None]
        sd = None if obs_sd is None else np.broadcast_to(_array(obs_sd), observed.shape[:2])
        starts = None if window_start is None else np.atleast_1d(window_start)
        windows = [
            stretch_from_arrays(
                dynamic[i], future[i], observed[i], mask[i], None if sd is None else sd[i],
                None if starts is None else starts[i],
            )
            for i in range(len(dynamic))
        ]  # fmt: skip
        result = self.invert_stretches(params_prior_raw, merge_stretches(windows), unconstrained, free, fix)
        return result.optimized.copy(), self._info(result, windows, record_history)

    def invert_stretches(
        self,
        params_prior_raw,
        stretches: Sequence[Stretch],
        unconstrained: bool = False,
        free: Sequence[str] | None = None,
        fix: Sequence[str] = (),
        start_from: np.ndarray | None = None,
    ) -> InversionResult:
        """Estimate the parameters from the observed days of `stretches` (inversion/data.py).

        start_from: (start, size) latent starting points instead of the prior and random draws.
        """
        begin = time.perf_counter()
        notes: list[str] = []
        prior = _array(params_prior_raw).astype(np.float64).reshape(-1)
        problem = self.problem(prior, stretches, unconstrained, free, fix)
        if len(problem.observations) < len(problem.latent.free):
            notes.append(
                f"{len(problem.observations)} valid observations for {len(problem.latent.free)} free parameters: "
                "most of them stay where the prior puts them"
            )
        starts = start_from
        if starts is None:
            starts = starting_points(problem, self.config.number_of_starts, self.config.seed)
        fit, posterior = self._solve(problem, starts, notes)
        optimized = problem.latent.physical_array(fit.u[: len(problem.latent.free)])
        result = InversionResult(
            self.names, problem.latent.prior, optimized, problem, fit, posterior, self.config,
            time.perf_counter() - begin, notes,
        )  # fmt: skip
        places = places_sentence(posterior.mode_weights) if result.multimodal else ""
        if places:
            rough = self.can_temper and self.config.posterior == "draws"
            notes.append(f"multimodal: {places}{'; the shares are rough, --posterior tempered says more' * rough}")
        return result

    def _solve(self, problem: InversionProblem, starts: np.ndarray, notes: list[str]) -> tuple[Fit, Posterior | None]:
        """Fit and posterior from `starts` (start, size); adds what a reader should know to `notes`."""
        fit = self._search(problem, starts, notes)
        if not problem.is_likelihood:
            return fit, None
        if self.config.posterior == "draws":
            return fit, self._draws(problem, fit)
        search, draws = partial(self._search, problem, notes=notes), partial(self._draws, problem)
        begin, chains = time.perf_counter(), self.config.posterior == "mcmc"
        minutes = self.config.mcmc_minutes / (2 if chains else 1)
        fit, posterior = tempered_posterior(problem, fit, search, draws, minutes, self.config, self.say)
        notes.append(posterior.diagnostics.sentence(problem.latent.free_names))
        if not chains or posterior.method != "tempered":
            return fit, posterior
        left = self.config.mcmc_minutes - (time.perf_counter() - begin) / 60
        return fit, self._chains(problem, fit, posterior, notes, left)

    def _search(self, problem: InversionProblem, starts: np.ndarray, notes: list[str]) -> Fit:
        """The fit from `starts` (start, size), with the error of forests that are not at rest where it is one."""
        problem.set_error_model(self._error_model(problem.observations, self.errors))
        notes[:] = [note for note in notes if note != RESTLESS]  # an earlier fit's
        fit = solver_of(self.config).solve(problem, starts)
        if problem.is_likelihood and self._is_restless(problem, fit):
            problem.set_error_model(self._error_model(problem.observations, restless_errors(self.errors)))
            fit = solver_of(self.config).solve(problem, fit.u[None])
            notes.append(RESTLESS)
        return fit

    def _draws(self, problem: InversionProblem, fit: Fit, dear: InversionProblem | None = None) -> Posterior:
        """The ensemble's members where the method has them, else randomized draws around the fit.

        dear: the problem that `problem` stands for, see inversion/randomized_likelihood.py.
        """
        if fit.members is not None:
            return ensemble_posterior(problem, fit)
        config = self.config
        return laplace_posterior(problem, fit, config.samples, config.seed, config.randomized_draws, dear)

    def _chains(self, problem: InversionProblem, fit: Fit, draws: Posterior, notes, minutes: float) -> Posterior:
        """The posterior by Markov chains that start from `draws`, which stand where the chains do not converge."""
        mode = mode_at(problem, fit.u, fit.cost, fit.predicted, fit.jacobian)
        posterior = mcmc_posterior(problem, mode, draws, self.config.seed, minutes, self.say)
        notes.append(posterior.diagnostics.sentence(problem.latent.free_names))
        return posterior

    def problem(
        self, prior: np.ndarray, stretches: Sequence[Stretch], unconstrained: bool = False, free=None, fix=()
    ) -> InversionProblem:
        """The cost of this inversion before anything is fitted. UserError on data or bounds that make none."""
        config = self.config
        if len(prior) != len(self.names):
            raise UserError(f"the prior holds {len(prior)} parameters, the emulator has {len(self.names)}")
        if not np.isfinite(prior).all():
            raise UserError(f"the prior of {self.names[int(np.flatnonzero(~np.isfinite(prior))[0])]} is not finite")
        if unconstrained and config.method == "ensemble":
            raise UserError("--unconstrained has no prior to draw an ensemble from; use method gauss_newton or adam")
        if config.lambda_prior is not None and config.method == "ensemble":
            raise UserError("method ensemble samples a posterior and needs lambda_prior: null in the configuration")
        observations = observation_vector(stretches, config.targets)
        space = None
        if config.clip_raw_params.enabled and not unconstrained:
            space = inversion_space(self.names, prior, config, self.space, self.config_source)
        latent = make_latent_map(
            self.names, prior, self.static_scale, space, free, fix, clip_prior=config.bounds_file == "emulator"
        )
        if config.lambda_prior is None and config.error_model.emulator and self.errors is None:
            warn("the emulator's own error is unknown (no emulator_error.npz): intervals will be too narrow")
        return InversionProblem(
            self.forward(stretches), observations, latent, self._error_model(observations, self.errors),
            config.offset_sd if config.nuisance == "offset" else 0.0,
            config.lambda_prior, not unconstrained, self._target_scale(config.targets), config.gauss_newton.step,
        )  # fmt: skip

    def _error_model(self, observations: Observations, errors: EmulatorErrors | None) -> ErrorModel:
        """The error model before its unknown parts are estimated, with these errors of the emulator."""
        config = self.config
        given = {name.lower(): value for name, value in config.target_weights.items()}
        weights = [float(given.get(target, 1.0)) for target in config.targets]
        errors = errors if config.lambda_prior is None else None
        return make_error_model(observations, errors, config.error_model, weights)

    def _is_restless(self, problem: InversionProblem, fit: Fit) -> bool:
        """Whether the estimate is a forest that is not at rest, and such have an error of their own."""
        if problem.error_model.emulator is None or restless_errors(self.errors) is None:
            return False
        vector = problem.latent.physical_array(fit.u[: len(problem.latent.free)])
        return is_restless(problem.forward, self.errors, vector)

    def _target_scale(self, targets: Sequence[str]) -> np.ndarray:
        """(target,) Mg C ha-1 day-1 that standardises the mse form: the network's own target scale (ER: GPP's)."""
        scale = getattr(self.model, "target_scale", None)
        if scale is None:
            return np.ones(len(targets))
        values = scale.detach().cpu().numpy().astype(np.float64)
        return np.array([values[TARGETS.index(t if t in TARGETS else "gpp")] for t in targets])

    def _info(self, result: InversionResult, windows: Sequence[Stretch], record_history: bool) -> dict[str, Any]:
        both = torch.as_tensor(np.stack([result.prior, result.optimized]))
        with torch.no_grad():
            predictions = self.forward(windows)(both)
        info: dict[str, Any] = {
            "method": result.config.method,
            "loss_history": [entry["cost"] for entry in result.fit.history],
            "initial_loss": result.fit.history[0]["costs"][0],
            "best_loss": result.fit.cost,
            "iterations": len(result.fit.history) - 1,
            "evaluations": result.problem.evaluations,
            "seconds": result.seconds,
            "reasons": list(result.fit.reasons),
            "start_losses": result.fit.start_costs.tolist(),
            "multimodal": result.multimodal,
            "at_bounds": result.at_bounds,
            "offsets": result.offsets,
            "notes": list(result.notes),
            "prediction_prior": np.stack([part[0].numpy() for part in predictions]),
            "prediction_optimized": np.stack([part[1].numpy() for part in predictions]),
            "posterior": result.posterior,
            "error_model": result.error_model.shares() if result.problem.lambda_prior is None else None,
            "result": result,
        }
        if record_history:
            free = len(result.problem.latent.free)
            info["param_history"] = result.problem.latent.physical_array(np.stack(result.fit.trace)[:, :free])
        return info


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def scaler_numbers(scaler: Any) -> tuple[np.ndarray, np.ndarray]:
    """mean and scale of a Scaler or a scikit-learn StandardScaler, (column,) float64."""
    for mean, scale in (("mean", "scale"), ("mean_", "scale_")):
        if hasattr(scaler, mean) and hasattr(scaler, scale):
            return np.asarray(getattr(scaler, mean), np.float64), np.asarray(getattr(scaler, scale), np.float64)
    raise TypeError(f"{type(scaler).__name__} is no scaler: it has neither mean/scale nor mean_/scale_")
