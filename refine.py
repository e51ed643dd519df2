"""Correct the emulator where the answer lies: simulator runs at draws from the posterior, and the inversion again.

A round draws parameter vectors from the posterior, runs the process model (or the user's VISIT) there, learns the
emulator's error as a smooth function of the parameters (Gaussian process, one kernel for all days), and repeats the
inversion with the corrected emulator, until the error that is left is small against the observation error.
Kennedy and O'Hagan (2001) for a discrepancy as a Gaussian process; Rasmussen and Williams (2006), ch. 2 and 5.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from command_line import UserError, warn, writing
from emulator import Emulator
from emulator_covariance import EmulatorErrorSample
from inverse_estimator import InversionResult, StaticParameterInverter
from inversion_data import Stretch, combine_fluxes, stretch_from_arrays
from inversion_problem import Forward
from simulator_check import driving_weather, simulate_vectors
from sites import DEFAULT_SITE, Site, load_site
from units import DYNAMIC_FEATURES, FLUX_UNIT, TARGETS
from visit_files import read_daily_file, write_daily_file
from weather import Weather

MAX_ROUNDS = 4
SMALL = 0.2  # emulator error / observation error (sd of the fitted targets) at which refinement stops
PRINCIPAL = 5  # principal components of the error whose likelihood sets the kernel


@dataclass(frozen=True)
class Correction:
    """The emulator's error as a Gaussian process over scaled parameters x = (physical - mean) / scale.

    kernel(x, x') = constant + linear x.x' / P + smooth exp(-|x - x'|^2 / (2 length^2 P)), the same for all days.
    """

    points: torch.Tensor  # (run, parameter) scaled
    weights: torch.Tensor  # (run, day, 4): K^-1 error
    hyper: np.ndarray  # constant, linear, smooth, length, noise (variances relative to the error's)
    left_over: np.ndarray  # (run, day, 4) leave-one-out errors, Mg C ha-1 day-1

    def __call__(self, scaled: torch.Tensor) -> torch.Tensor:
        """scaled (batch, parameter) -> expected error (batch, day, 4), Mg C ha-1 day-1."""
        return torch.einsum("br,rdf->bdf", _kernel(scaled, self.points, self.hyper), self.weights)


def _kernel(a, b, hyper) -> torch.Tensor:
    constant, linear, smooth, length = hyper[:4]
    width = a.shape[-1]
    distance = torch.cdist(a, b).square() / width
    return constant + linear * (a @ b.T) / width + smooth * torch.exp(-0.5 * distance / length**2)


def fit_correction(points: np.ndarray, error: np.ndarray) -> Correction:
    """Fit the Gaussian process to error (run, day, 4) at scaled points (run, parameter).

    Kernel parameters maximise the likelihood of the leading principal components; leave-one-out errors follow from
    K^-1 (Rasmussen and Williams 2006, eq. 5.12).
    """
    runs = len(points)
    x = torch.as_tensor(points, dtype=torch.float64)
    flat = error.reshape(runs, -1).astype(np.float64)
    gram = flat @ flat.T
    values, vectors = np.linalg.eigh(gram)
    scores = (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, : min(PRINCIPAL, runs)]
    scores = scores / np.sqrt(np.maximum((scores**2).mean(axis=0), 1e-30))
    share = np.maximum(values[::-1][: scores.shape[1]], 0.0)
    share = share / max(share.sum(), 1e-30)

    def matrix(log_hyper: np.ndarray) -> np.ndarray:
        """Covariance of the correction for logarithms of its hyper-parameters."""
        hyper = np.exp(log_hyper)
        return _kernel(x, x, hyper).numpy() + hyper[4] * np.eye(runs)

    def cost(log_hyper: np.ndarray) -> float:
        """Minus the log posterior, up to a constant; large where the covariance is not positive definite."""
        try:
            factor = cho_factor(matrix(log_hyper), lower=True)
        except np.linalg.LinAlgError:
            return 1e12
        fit = 0.5 * np.einsum("rk,rk->k", scores, cho_solve(factor, scores)) @ share
        prior = 0.5 * np.sum(((log_hyper - START) / 2.0) ** 2) / len(share)
        return float(fit + np.log(np.diag(factor[0])).sum() + prior)

    result = minimize(cost, START, method="L-BFGS-B", bounds=[(s - 6, s + 6) for s in START], options={"maxiter": 80})
    inverse = np.linalg.inv(matrix(result.x))
    weights = inverse @ flat
    left_over = weights / np.diag(inverse)[:, None]
    shape = (runs, *error.shape[1:])
    return Correction(
        x, torch.as_tensor(weights.reshape(shape)), np.exp(result.x), left_over.reshape(shape).astype(np.float32)
    )


START = np.log([0.5, 0.3, 0.3, 1.0, 0.1])


class CorrectedForward(Forward):
    """The emulator minus its learned error on the days of the stretches."""

    correction: Correction | None = None
    day_index: list[np.ndarray] = []

    def __call__(self, physical: torch.Tensor) -> list[torch.Tensor]:
        """As Forward: physical (batch, parameter) -> (batch, day, 4) for each stretch."""
        fluxes = super().__call__(physical)
        if self.correction is None:
            return fluxes
        error = self.correction((physical.to(torch.float64) - self.mean) / self.scale)
        return [part - error[:, torch.as_tensor(days)] for part, days in zip(fluxes, self.day_index, strict=True)]


@dataclass
class Refinement:
    """Simulator runs so far, and the inverter that they correct."""

    inverter: StaticParameterInverter
    simulate: Callable[[np.ndarray], np.ndarray]  # (run, parameter) -> (run, day, 4) over `weather`
    weather: Weather
    context: int
    feature_order: list[int]
    parameters: np.ndarray  # (run, parameter) physical
    fluxes: np.ndarray  # (run, day, 4) Mg C ha-1 day-1 over `weather`

    def run(self, result: InversionResult, stretches: Sequence[Stretch], runs: int, rounds: int = MAX_ROUNDS):
        """Refine `result` with `runs` simulator runs a round; returns the new result and a table of the rounds."""
        base = self.inverter
        rows = []
        for round_number in range(1, rounds + 1):
            draws = posterior_draws(result, runs, base.config.seed + round_number)
            self.add(draws)
            corrected, correction = self.corrected_inverter()
            previous = result
            result = corrected.invert_stretches(
                result.prior,
                stretches,
                free=result.problem.latent.free_names,
                start_from=np.unique(result.fit.starts, axis=0),
            )
            recent = correction.left_over[-runs:]
            row = {
                "round": round_number, "runs": len(self.parameters),
                **self._errors(draws, recent, result, stretches),
                "shift": float(np.abs(result.fit.u - previous.fit.u).max()),
            }  # fmt: skip
            rows.append(row)
            print(
                f"refinement round {round_number}: {row['runs']} runs, emulator error at the posterior "
                f"{row['error_before']:.5f} -> {row['error_after']:.5f} {FLUX_UNIT} (left-out runs), observation error "
                f"{row['observation_sd']:.5f}"
            )
            if row["error_after"] < SMALL * row["observation_sd"] and round_number > 1:
                break
        else:
            warn(f"refinement stopped after its budget of {rounds} rounds; see refinement.csv")
        return result, pd.DataFrame(rows)

    def add(self, parameters: np.ndarray) -> None:
        """Run the simulator at parameters (run, parameter) and keep the runs."""
        fluxes = self.simulate(parameters)
        good = np.isfinite(fluxes).all(axis=(1, 2))
        if not good.any():
            raise UserError("refinement: no simulator run succeeded at the draws from the posterior; see its messages")
        self.parameters = np.concatenate([self.parameters, parameters[good]])
        self.fluxes = np.concatenate([self.fluxes, fluxes[good].astype(np.float32)])

    def corrected_inverter(self) -> tuple[StaticParameterInverter, Correction]:
        """An inverter whose forward is corrected by all runs, with their leave-one-out errors as its error sample."""
        base, context = self.inverter, self.context
        weather = (self.weather.values[:, self.feature_order] - base.dynamic_mean) / base.dynamic_scale
        days = len(weather) - context
        whole = stretch_from_arrays(
            weather[:context], weather[context:], np.zeros((days, 4)), np.zeros(days), start=self.weather.dates[context]
        )
        with torch.no_grad():
            emulated = Forward.__call__(
                Forward(base.model, base.static_mean, base.static_scale, [whole], base.device),
                torch.as_tensor(self.parameters),
            )[0].numpy()
        error = emulated - self.fluxes[:, context:]
        points = (self.parameters - base.static_mean) / base.static_scale
        correction = fit_correction(points, error)
        sample = EmulatorErrorSample(correction.left_over, self.weather.dates[context:])
        return CorrectedInverter(base, correction, sample, self.weather.dates[context]), correction

    def _errors(self, draws, recent, result, stretches) -> dict[str, float]:
        """Errors of the emulator at the newest draws on the observed days: raw, and left out after correction."""
        target = result.config.targets[0]
        day = np.timedelta64(1, "D")
        first = self.weather.dates[self.context]
        index = np.concatenate([((s.dates[s.mask.any(axis=1)] - first) / day).astype(int) for s in stretches])
        with torch.no_grad():
            raw = self.inverter.forward(stretches)(torch.as_tensor(draws))
        emulated = torch.cat(raw, dim=1).numpy()
        kept = np.concatenate([s.mask.any(axis=1) for s in stretches])
        truth = self.fluxes[-len(recent) :, self.context :][:, index]
        before = combine_fluxes(emulated[:, kept] - truth, target)
        after = combine_fluxes(recent[:, index], target)
        shares = result.error_model.shares()[target]
        return {
            "error_before": float(np.sqrt(np.mean(before**2))), "error_after": float(np.sqrt(np.mean(after**2))),
            "observation_sd": shares["observation_sd"],
        }  # fmt: skip


class CorrectedInverter(StaticParameterInverter):
    """An inverter whose emulator is corrected on the days of the simulator's weather."""

    def __init__(self, base: StaticParameterInverter, correction: Correction, sample, first_date) -> None:
        self.__dict__.update(base.__dict__)
        self.errors, self.correction, self.first_date = sample, correction, first_date

    def forward(self, stretches: Sequence[Stretch]) -> CorrectedForward:
        """The corrected emulator over stretches inside the simulator's weather."""
        forward = CorrectedForward(self.model, self.static_mean, self.static_scale, stretches, self.device)
        forward.correction = self.correction
        forward.day_index = [((s.dates - self.first_date) / np.timedelta64(1, "D")).astype(int) for s in stretches]
        return forward


def posterior_draws(result: InversionResult, count: int, seed: int) -> np.ndarray:
    """(count, parameter) physical: the estimate, then draws from the posterior."""
    if result.posterior is None:
        raise UserError("--refine draws from the posterior; it needs lambda_prior: null and no --unconstrained")
    rows = np.random.default_rng(seed).choice(len(result.posterior.physical), count - 1, replace=False)
    return np.vstack([result.optimized, result.posterior.physical[rows]])


# --- from the command line -------------------------------------------------------------------------------------------


def refine_inversion(
    arguments: argparse.Namespace,
    emulator: Emulator,
    inverter: StaticParameterInverter,
    stretches: Sequence[Stretch],
    result: InversionResult,
    directory: Path,
) -> tuple[StaticParameterInverter, InversionResult]:
    """--refine N of test_inversion.py: runs are kept in directory/refinement as an ensemble, reused on a restart."""
    site = load_site(arguments.site or DEFAULT_SITE)
    weather = driving_weather(arguments.weather, arguments.data_dir, site, emulator, stretches)
    store = RunStore(directory / "refinement", result.names, weather)
    engine = make_engine(arguments, weather, site)
    order = [DYNAMIC_FEATURES.index(name) for name in emulator.feature_names]
    context = emulator.configuration.evaluation.context_days
    width = len(result.names)
    refinement = Refinement(
        inverter, lambda parameters: store.simulate(parameters, engine), weather, context, order,
        np.empty((0, width)), np.empty((0, len(weather.dates), len(TARGETS)), dtype=np.float32),
    )  # fmt: skip
    result, table = refinement.run(result, stretches, arguments.refine)
    with writing(directory / "refinement.csv") as temporary:
        table.to_csv(temporary, index=False)
    return refinement.corrected_inverter()[0], result


def make_engine(arguments: argparse.Namespace, weather: Weather, site: Site) -> Callable:
    """The built-in process model, or the user's VISIT by --command-template.

    Called with values (run, parameter) and names, it returns fluxes (run, day, 4), NaN where a run failed.
    """
    if not arguments.command_template:
        return lambda values, names: simulate_vectors(values, names, weather, site)
    from ensemble_engines import CommandEngine, read_slots
    from run_perturbations import run_all

    if not arguments.visit_template:
        raise UserError("--command-template needs --visit-template, VISIT's baseline parameter file")
    engine = CommandEngine(
        arguments.command_template, Path(arguments.visit_template), read_slots(), weather.dates,
        weather=arguments.weather or "", timeout=arguments.timeout,
    )  # fmt: skip

    def simulate(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(run, parameter) physical -> (run, day, 4) Mg C ha-1 day-1."""
        engine.check(names)
        fluxes = np.full((len(values), len(weather.dates), len(TARGETS)), np.nan)
        for outcome in run_all(engine, list(range(len(values))), tuple(names), values, arguments.jobs or 2, None):
            if outcome.fluxes is None:
                warn(f"refinement run {outcome.sample_id} failed: {outcome.message}")
            else:
                fluxes[outcome.sample_id] = outcome.fluxes
        return fluxes

    return simulate


class RunStore:
    """Simulator runs kept as an ensemble (VISIT daily files, parameter_summary.csv), looked up by their parameters."""

    def __init__(self, directory: Path, names: Sequence[str], weather: Weather) -> None:
        self.directory, self.names, self.weather = directory, tuple(names), weather
        self.table = pd.DataFrame(columns=["sample_id", *self.names])
        path = directory / "parameter_summary.csv"
        if path.is_file():
            self.table = pd.read_csv(path)
            if list(self.table.columns) != ["sample_id", *self.names]:
                raise UserError(f"{path}: holds other parameters than the emulator; remove the folder {directory}")

    def path(self, sample: int) -> Path:
        """The daily file of a run."""
        return self.directory / f"LHP_refine_daily_{sample:04d}.txt"

    def simulate(self, parameters: np.ndarray, engine: Callable) -> np.ndarray:
        """parameters (run, parameter) -> fluxes (run, day, 4); runs that are there are read, others made and kept."""
        fluxes = np.full((len(parameters), len(self.weather.dates), len(TARGETS)), np.nan)
        known = self.table[list(self.names)].to_numpy(dtype=float)
        missing = []
        for i, vector in enumerate(parameters):
            rows = np.flatnonzero(np.all(np.isclose(known, vector, rtol=1e-9, atol=0), axis=1)) if len(known) else []
            if len(rows):
                fluxes[i] = read_daily_file(self.path(int(self.table["sample_id"].iloc[rows[0]]))).fluxes
            else:
                missing.append(i)
        if missing:
            made = engine(parameters[missing], self.names)
            for i, flux in zip(missing, made, strict=True):
                fluxes[i] = flux
                if np.isfinite(flux).all():
                    self._keep(parameters[i], flux)
        return fluxes

    def _keep(self, vector: np.ndarray, flux: np.ndarray) -> None:
        sample = int(self.table["sample_id"].max()) + 1 if len(self.table) else 0
        write_daily_file(
            self.path(sample), self.weather.dates, self.weather.values, flux, dict(zip(self.names, vector, strict=True))
        )
        row = pd.DataFrame([[sample, *vector]], columns=["sample_id", *self.names])
        self.table = pd.concat([self.table, row], ignore_index=True) if len(self.table) else row
        with writing(self.directory / "parameter_summary.csv") as temporary:
            self.table.to_csv(temporary, index=False)
