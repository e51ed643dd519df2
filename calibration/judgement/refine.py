"""Correct the emulator where the answer lies: simulator runs at draws from the posterior, and the inversion again.

A round draws parameter vectors from the posterior, runs the process model (or the user's VISIT) there, takes the mean
of the emulator's error off its predictions day by day, and repeats the inversion with what is left of the error as its
covariance, until that is small against the observation error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.linalg import solve_triangular

from calibration.common.command_line import UserError, read_json, silent, warn, write_csv, write_json
from calibration.common.units import DYNAMIC_FEATURES, FLUX_UNIT, TARGETS
from calibration.emulator.error import EmulatorErrors
from calibration.emulator.trained import Emulator
from calibration.ensembles.files import read_daily_file, write_daily_file
from calibration.inversion.data import OBSERVABLE, Stretch, combine_fluxes, day_index, stretch_from_arrays
from calibration.inversion.problem import DailyBias
from calibration.judgement.simulator_check import OUTLIER, ProcessModel, on_stretches
from calibration.weather.daily import Weather
from inverse_estimator import InversionResult, StaticParameterInverter

MAX_ROUNDS = 4
SMALL = 0.2  # emulator error / observation error (sd of the fitted targets) at which refinement stops
COLUMNS = ("round", "runs", "error_before", "error_after", "error_at_estimate", "observation_sd", "shift")
SETTINGS = "refinement.json"  # which process model made the runs of a folder
FEWEST = 10  # runs of a round from which a mean and a scatter can be told


@dataclass(frozen=True)
class Correction:
    """What the emulator errs on average where the answer lies, and what is left of its error there."""

    bias: torch.Tensor  # (day, 4) Mg C ha-1 day-1, the same for all parameters
    left_over: np.ndarray  # (run, day, 4) leave-one-out errors, Mg C ha-1 day-1


def local_correction(rounds: Sequence[np.ndarray]) -> Correction:
    """The correction from errors (run, day, 4), Mg C ha-1 day-1, of each round, oldest first.

    Only the newest round lies where the answer is, so that its mean is the bias; how runs scatter about the mean of
    their round is alike in all. The bias does not vary with the parameters on purpose: a slope in 36 parameters
    learned from some 100 runs (linear or Gaussian process) looks like information about parameters that the data do
    not inform, and their intervals come out too narrow.
    """
    left_over = [(error - error.mean(axis=0)) * (len(error) / max(len(error) - 1, 1)) for error in rounds]
    bias = rounds[-1].astype(np.float64).mean(axis=0)
    return Correction(torch.as_tensor(bias), np.concatenate(left_over).astype(np.float32))


@dataclass(frozen=True)
class Answer:
    """What a round ends with; fluxes (1, day, 4) Mg C ha-1 day-1: the simulator at the estimate, NaN if it failed."""

    result: InversionResult
    inverter: StaticParameterInverter
    fluxes: np.ndarray


@dataclass
class Refinement:
    """The emulator's errors at simulator runs so far, and the inverter that they correct."""

    inverter: StaticParameterInverter
    simulate: Callable[[np.ndarray], np.ndarray]  # (run, parameter) physical -> (run, day, 4) over `weather`
    weather: Weather
    context: int
    feature_order: list[int]
    errors: list[np.ndarray] = field(default_factory=list)  # by round (run, day after context, 4), Mg C ha-1 day-1
    say: Callable[[str], object] = silent  # hears a line after each round

    @property
    def runs(self) -> int:
        """Simulator runs of all rounds."""
        return sum(len(error) for error in self.errors)

    def run(
        self, result: InversionResult, stretches: Sequence[Stretch], runs: int, rounds: int = MAX_ROUNDS
    ) -> tuple[InversionResult, StaticParameterInverter, pd.DataFrame]:
        """Refine `result` with `runs` simulator runs a round: the answer, the inverter that gave it, and a table of
        the rounds.
        """
        answers = [self.answer(result, self.inverter)]
        rows: list[dict] = []
        typical = True
        for round_number in range(1, rounds + 1):
            previous = answers[-1]
            draws = posterior_draws(previous.result, runs, self.inverter.config.seed + round_number)
            try:
                self.add(draws, np.concatenate([previous.fluxes, self.simulate(draws[1:])]))
            except UserError as error:
                warn(f"{error}; the answer of round {round_number - 1} stands")
                break
            corrected, correction = self.corrected_inverter()
            result = corrected.invert_stretches(
                result.prior,
                stretches,
                free=result.problem.latent.free_names,
                start_from=np.unique(result.fit.starts, axis=0),
            )
            answers.append(self.answer(result, corrected))
            row = {
                "round": round_number, "runs": self.runs,
                "error_before": self.observed_rms(self.errors[-1], result, stretches),
                "error_after": self.observed_rms(correction.left_over[-len(self.errors[-1]) :], result, stretches),
                "error_at_estimate": self.error_at_estimate(answers[-1], stretches),
                "observation_sd": result.error_model.shares()[result.config.targets[0]]["observation_sd"],
                "shift": float(np.abs(result.fit.u - previous.result.fit.u).max()),
            }  # fmt: skip
            rows.append(row)
            self.say(
                f"refinement round {round_number}: {row['runs']} runs, emulator error at the posterior "
                f"{row['error_before']:.5f} -> {row['error_after']:.5f} {FLUX_UNIT} (left-out runs), at the estimate "
                f"{row['error_at_estimate']:.5f}, observation error {row['observation_sd']:.5f}"
            )
            # NaN: the simulator fails at the estimate, and nothing can be said of the emulator there
            typical = not row["error_at_estimate"] > OUTLIER * row["error_after"]
            if row["error_after"] < SMALL * row["observation_sd"] and round_number > 1 and typical:
                break
        else:
            warn(f"refinement stopped after its budget of {rounds} rounds; see refinement.csv")
        if rows and np.isnan(rows[-1]["error_at_estimate"]):
            warn("refinement: the process model fails at the estimate; judge the answer with care")
        chosen = answers[-1] if typical else self.nearest_to_the_data(answers, stretches)
        kept = next(i for i, answer in enumerate(answers) if answer is chosen)
        table = pd.DataFrame(rows, columns=COLUMNS).assign(kept=[row["round"] == kept for row in rows])
        return chosen.result, chosen.inverter, table

    def answer(self, result: InversionResult, inverter: StaticParameterInverter) -> Answer:
        """An inversion's result together with the simulator's fluxes at its estimate."""
        return Answer(result, inverter, self.simulate(result.optimized[None]))

    def simulated(self, answer: Answer, stretches: Sequence[Stretch]) -> np.ndarray:
        """(entry,) the simulator at the estimate as the data see it, Mg C ha-1 day-1; NaN where it failed."""
        parts = [torch.as_tensor(on_stretches(answer.fluxes, self.weather.dates, [s])) for s in stretches]
        return answer.result.problem.entries(parts, torch.as_tensor(answer.result.fit.u[None]))[0].numpy()

    def error_at_estimate(self, answer: Answer, stretches: Sequence[Stretch]) -> float:
        """Rms difference of the answer's emulator from the simulator at the estimate, first target, Mg C ha-1 day-1."""
        error = answer.result.fit.predicted - self.simulated(answer, stretches)
        return float(np.sqrt(np.mean(error[answer.result.problem.observations.target == 0] ** 2)))

    def nearest_to_the_data(self, answers: Sequence[Answer], stretches: Sequence[Stretch]) -> Answer:
        """The answer whose simulator run fits best, when the last one owes its fit to an error of the emulator.

        Judged by minus the log posterior with the last error model, without the emulator's share.
        """
        errors = replace(answers[-1].result.error_model, emulator=None)
        factor, costs = errors.factor(), []
        for answer in answers:
            problem, u = answer.result.problem, answer.result.fit.u
            residual = problem.observations.value - self.simulated(answer, stretches)
            if np.isfinite(residual).all():
                white = solve_triangular(factor, residual, lower=True)
                costs.append(0.5 * white @ white + 0.5 * np.sum((u - problem.prior) ** 2))
            else:
                costs.append(np.inf)
        best = int(np.argmin(costs)) if np.isfinite(costs).any() else len(answers) - 1
        kept = "is kept all the same" if answers[best] is answers[-1] else "gives way"
        warn(
            f"refinement: the emulator errs at the last estimate over {OUTLIER:g} times as much as around it; the "
            f"estimate {kept}: the process model's own output fits the data best after round {best}"
            f"{' (the inversion before refinement)' if best == 0 else ''}. The answer depends on the emulator's error: "
            "more training runs, or fewer --free parameters"
        )
        return answers[best]

    def add(self, parameters: np.ndarray, fluxes: np.ndarray) -> None:
        """Keep the emulator's errors at parameters (run, parameter) physical as a round; fluxes (run, day, 4) of the
        simulator, NaN where it failed. UserError when fewer than FEWEST runs succeeded.
        """
        good = np.isfinite(fluxes).all(axis=(1, 2))
        if good.sum() < FEWEST:
            raise UserError(
                f"refinement: {good.sum()} of {len(parameters)} simulator runs at draws from the posterior succeeded, "
                f"at least {FEWEST} have to; see their messages"
            )
        base, context = self.inverter, self.context
        weather = (self.weather.values[:, self.feature_order] - base.dynamic_mean) / base.dynamic_scale
        days = len(weather) - context
        whole = stretch_from_arrays(
            weather[:context], weather[context:], np.zeros((days, 4)), np.zeros(days), start=self.weather.dates[context]
        )
        with torch.no_grad():
            emulated = base.forward([whole])(torch.as_tensor(parameters[good]))[0].numpy()
        self.errors.append(emulated - fluxes[good][:, context:])

    def corrected_inverter(self) -> tuple[StaticParameterInverter, Correction]:
        """An inverter whose forward is corrected by the newest round, with left-out errors as its error sample."""
        correction = local_correction(self.errors)
        first = self.weather.dates[self.context]
        sample = EmulatorErrors(self.weather.dates[self.context :], correction.left_over)
        return self.inverter.corrected(DailyBias(first, correction.bias), sample), correction

    def observed_rms(self, error: np.ndarray, result: InversionResult, stretches: Sequence[Stretch]) -> float:
        """Rms of error (run, day, 4) of the first target on the days when it is observed, Mg C ha-1 day-1."""
        first = self.weather.dates[self.context]
        target = result.config.targets[0]
        dates = np.concatenate([s.dates[s.mask[:, OBSERVABLE.index(target)]] for s in stretches])
        return float(np.sqrt(np.mean(combine_fluxes(error[:, day_index(dates, first)], target) ** 2)))


def posterior_draws(result: InversionResult, count: int, seed: int) -> np.ndarray:
    """(count, parameter) physical: the estimate, then draws from the posterior.

    Runs beyond the draws that there are lie in the Gaussian around the estimate.
    """
    posterior, latent, rng = result.posterior, result.problem.latent, np.random.default_rng(seed)
    if posterior is None:
        raise UserError("--refine draws from the posterior; it needs lambda_prior: null and no --unconstrained")
    rows = rng.choice(len(posterior.physical), min(count - 1, len(posterior.physical)), replace=False)
    more = rng.multivariate_normal(posterior.modes[0], posterior.covariance, count - 1 - len(rows))
    more = np.clip(more[:, : len(latent.free)], -latent.limit, latent.limit)
    return np.vstack([result.optimized, posterior.physical[rows], latent.physical_array(more)])


def check_runs(runs: int) -> None:
    """UserError unless --refine is 0 (off) or enough runs a round, of which half may fail."""
    if runs and runs < 2 * FEWEST:
        raise UserError(f"--refine is {runs}; it must be 0 (off) or {2 * FEWEST} or more simulator runs a round")


# --- into a result folder --------------------------------------------------------------------------------------------


def refine_inversion(
    model: ProcessModel,
    runs: int,
    emulator: Emulator,
    inverter: StaticParameterInverter,
    stretches: Sequence[Stretch],
    result: InversionResult,
    directory: Path,
    say: Callable[[str], object],
) -> tuple[StaticParameterInverter, InversionResult, str]:
    """--refine `runs` of test_inversion.py: kept in directory/refinement as an ensemble, reused on a restart.

    Returns the inverter, its result and a line for the summary.
    """
    store = RunStore(directory / "refinement", result.names, model)
    order = [DYNAMIC_FEATURES.index(name) for name in emulator.feature_names]
    context = emulator.configuration.evaluation.context_days
    refinement = Refinement(inverter, store.simulate, model.weather, context, order, say=say)
    result, inverter, table = refinement.run(result, stretches, runs)
    write_csv(directory / "refinement.csv", table)
    kept = table["round"][table["kept"]].max() if table["kept"].any() else 0
    return inverter, result, (
        f"{len(table)} rounds, {refinement.runs} runs of the process model; the answer is that of round {kept}"
        f"{'' if kept else ' (before refinement)'}"
    )  # fmt: skip


class RunStore:
    """Simulator runs kept as an ensemble (VISIT daily files, parameter_summary.csv), looked up by their parameters."""

    def __init__(self, directory: Path, names: Sequence[str], model: ProcessModel) -> None:
        self.directory, self.names, self.model = directory, tuple(names), model
        self.table = pd.DataFrame(columns=["sample_id", *self.names])
        settings = {"parameters": ", ".join(self.names), **model.identity}
        path, table = directory / SETTINGS, directory / "parameter_summary.csv"
        if path.is_file() or table.is_file():
            before = read_json(path)
            different = [key for key in settings if before.get(key) != settings[key]]
            if different:
                raise UserError(
                    f"{directory}: holds simulator runs with another {different[0]} than now; remove that folder or "
                    "give another --result-dir"
                )
        write_json(path, settings)
        if table.is_file():
            self.table = pd.read_csv(table)

    def path(self, sample: int) -> Path:
        """The daily file of a run."""
        return self.directory / f"LHP_refine_daily_{sample:04d}.txt"

    def simulate(self, parameters: np.ndarray) -> np.ndarray:
        """parameters (run, parameter) -> fluxes (run, day, 4); runs that are there are read, others made and kept."""
        fluxes = np.full((len(parameters), len(self.model.weather.dates), len(TARGETS)), np.nan)
        known = self.table[list(self.names)].to_numpy(dtype=float)
        missing = []
        for i, vector in enumerate(parameters):
            rows = np.flatnonzero(np.all(np.isclose(known, vector, rtol=1e-9, atol=0), axis=1)) if len(known) else []
            if len(rows):
                fluxes[i] = read_daily_file(self.path(int(self.table["sample_id"].iloc[rows[0]]))).fluxes
            else:
                missing.append(i)
        if missing:
            for i, flux in self.model.runs(parameters[missing]):
                if np.isfinite(flux).all():
                    fluxes[missing[i]] = self._keep(parameters[missing[i]], flux)
        return fluxes

    def _keep(self, vector: np.ndarray, flux: np.ndarray) -> np.ndarray:
        """Write a run and return what its file holds: the file's rounding must not send a restart another way."""
        sample = int(self.table["sample_id"].max()) + 1 if len(self.table) else 0
        weather = self.model.weather
        write_daily_file(
            self.path(sample), weather.dates, weather.values, flux, dict(zip(self.names, vector, strict=True))
        )
        row = pd.DataFrame([[sample, *vector]], columns=["sample_id", *self.names])
        self.table = pd.concat([self.table, row], ignore_index=True) if len(self.table) else row
        write_csv(self.directory / "parameter_summary.csv", self.table)
        return read_daily_file(self.path(sample)).fluxes
