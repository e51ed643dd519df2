"""A recovery study: many known truths, made by the simulator, inverted; are the intervals right, is anything learned?

Called by evaluate_parameter_recovery.py --cases N. Each case has its own parameter vector (drawn uniformly in the
trained ranges, never trained on), first day, noise and gaps, all set by the seed and the case's number, so that an
interrupted study continues where it stopped and gives the same result.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from calibration.common.command_line import (
    ARCHIVE_ERRORS,
    UserError,
    progress,
    read_arrays,
    read_json,
    write_csv,
    write_json,
    writing,
)
from calibration.common.units import DAYS_PER_YEAR, DYNAMIC_FEATURES, TARGETS
from calibration.emulator.trained import Emulator
from calibration.engines.cluster import WorkerLostError, connect, on_cluster
from calibration.inversion.data import OBSERVABLE, Stretch, stretch_from_arrays
from calibration.inversion.posterior import INFORMED, predictive_samples
from calibration.judgement.recovery_figures import write_study_figures
from calibration.judgement.recovery_statistics import study_summary
from calibration.judgement.refine import Refinement
from calibration.weather.daily import Weather
from inverse_estimator import InversionResult, StaticParameterInverter

YEAR = 365  # days of the annual NEP that is predicted from shorter spans
RANKS = 99  # posterior samples that a truth is ranked among
PREDICTIVE = 150  # posterior draws behind the annual NEP
GAP_DAYS = 5  # mean length of a gap
CASE_SEEDS = 7919  # between the seeds of two cases
SETTINGS = "study_settings.json"
# (run, parameter) physical, jobs=processes -> (run, day, 4) Mg C ha-1 day-1 over the days of the weather
Simulate = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Study:
    """What a study asks; its cases follow from this, the seed of the inversion and the weather."""

    cases: int
    span: int = 365  # observed days
    noise: float = 0.005  # sd of white noise, Mg C ha-1 day-1
    gaps: float = 0.0  # share of days without observation
    noise_known: bool = True  # to the inversion
    refine: int = 0  # simulator runs a round of refinement, 0 = none


@dataclass(frozen=True)
class StudyCase:
    """What is known of a case beside its parameters."""

    number: int
    observed: Stretch  # with noise and gaps
    clean: Stretch  # the same first day, without noise, over a year or more
    annual_nep: float  # of the truth, Mg C ha-1 year-1
    feature_order: list[int]  # the emulator's columns of the weather

    @property
    def start(self) -> str:
        """First observed day."""
        return str(self.observed.dates[0])


def run_study(
    study: Study,
    directory: Path,
    emulator: Emulator,
    inverter: StaticParameterInverter,
    weather: Weather,
    simulate: Simulate,
    overwrite: bool = False,
    jobs: int | None = None,
    dask_scheduler: str | None = None,
) -> tuple[dict, list[dict]]:
    """Run or continue a study in `directory`: the content of recovery_study.json, and the results of its cases.

    weather: of the truths; simulate: the process model under it, sent to other processes.
    """
    settings = study_settings(study, emulator, inverter, weather)
    prepare_directory(directory, settings, overwrite)
    vectors = case_vectors(inverter, study.cases, inverter.config.seed)
    truth = simulated_truth(directory / "truth.npz", vectors, weather, simulate, jobs)
    cases = [make_case(i, truth[i], emulator, weather, study, inverter.config.seed) for i in range(study.cases)]
    run_cases(directory, cases, vectors, inverter, weather, simulate, study.refine, jobs, dask_scheduler)
    results = [read_json(case_path(directory, i)) for i in range(study.cases)]
    return study_summary(results, emulator.parameter_names, settings, emulator.shown), results


def write_study(directory: Path, summary: dict, results: Sequence[dict], names: Sequence[str], plots: bool) -> None:
    """recovery_study.json, tables by case and by parameter, and figures."""
    write_json(directory / "recovery_study.json", summary)
    write_csv(directory / "recovery_cases.csv", case_table(results))
    by_parameter = pd.DataFrame(summary["parameters"]).T.rename_axis("param_name")
    write_csv(directory / "recovery_parameters.csv", by_parameter, index=True)
    if plots:
        write_study_figures(directory, summary, results, names)


def study_settings(study: Study, emulator: Emulator, inverter: StaticParameterInverter, weather: Weather) -> dict:
    """What defines a study: the same settings continue it, others need another folder or --overwrite."""
    config = inverter.config
    checkpoint = hashlib.sha256(np.concatenate([w.detach().cpu().numpy().ravel() for w in emulator.model.parameters()]))
    return {
        "cases": study.cases, "span_days": study.span, "noise": study.noise, "gaps": study.gaps,
        "noise_known": study.noise_known, "targets": list(config.targets), "seed": config.seed, "truths": "Sobol",
        "method": config.method, "starts": config.number_of_starts, "refine": study.refine,
        "emulator": checkpoint.hexdigest()[:16],
        "weather": [str(weather.dates[0]), str(weather.dates[-1]), f"{weather.values.sum():.6g}"],
        "config": json.loads(json.dumps(config, default=lambda item: item.__dict__)),
    }  # fmt: skip


def prepare_directory(directory: Path, settings: dict, overwrite: bool) -> None:
    """Take the folder up again, or begin anew. UserError when it holds a study with other settings."""
    path = directory / SETTINGS
    if path.is_file() and not overwrite:
        before = read_json(path)
        # More cases of the same study are welcome: those that are there are kept.
        different = [key for key in settings if key != "cases" and before.get(key) != settings[key]]
        if different:
            raise UserError(
                f"{directory}: holds a study with another {different[0]} ({before.get(different[0])} there, "
                f"{settings[different[0]]} now); give another --result-dir, or --overwrite to replace it"
            )
    elif overwrite:
        for old in [*directory.glob("cases/case_*.json"), directory / "truth.npz"]:
            old.unlink(missing_ok=True)
    write_json(path, settings)


def case_path(directory: Path, case: int) -> Path:
    """The result file of a case."""
    return directory / "cases" / f"case_{case:04d}.json"


def case_vectors(inverter: StaticParameterInverter, count: int, seed: int) -> np.ndarray:
    """(case, parameter) physical, uniform in the trained ranges, ties held; case i is the same for any count.

    A scrambled Sobol sequence (Owen 1998): of 100 independent truths some parameters lie at the ends of their range
    oftener than at others, by chance, and seem to be covered too rarely.
    """
    from scipy.stats import qmc  # half a second's import for one call

    space = inverter.space
    drawn = qmc.Sobol(len(space), rng=np.random.default_rng([seed, 1])).random_base2(max(0, (count - 1).bit_length()))
    return space.unit_to_physical(np.clip(drawn[:count], 1e-6, 1 - 1e-6))


def simulated_truth(
    path: Path, vectors: np.ndarray, weather: Weather, simulate: Simulate, jobs: int | None
) -> np.ndarray:
    """The simulator's fluxes (case, day, 4), Mg C ha-1 day-1, made once and kept in `path`."""
    fluxes = np.empty((0, len(weather.dates), len(TARGETS)), dtype=np.float32)
    if path.is_file():
        with suppress(*ARCHIVE_ERRORS):  # a damaged file is made again
            known = read_arrays(path, ("parameters", "fluxes"))
            count = min(len(known["parameters"]), len(vectors))
            if np.allclose(known["parameters"][:count], vectors[:count], rtol=1e-12):
                fluxes = known["fluxes"][:count]
    for first in progress(range(len(fluxes), len(vectors), 20), desc="truths (simulator)", unit="batch"):
        batch = vectors[first : first + 20]
        made = simulate(batch, jobs=jobs).astype(np.float32)
        fluxes = np.concatenate([fluxes, made])
        with writing(path) as temporary:
            np.savez(temporary, parameters=vectors[: len(fluxes)], fluxes=fluxes)
    return fluxes


def make_case(case: int, truth: np.ndarray, emulator: Emulator, weather: Weather, study: Study, seed: int) -> StudyCase:
    """Observed stretch, the same stretch without noise over the annual horizon, and the true annual NEP of one case."""
    context = emulator.configuration.evaluation.context_days
    horizon = max(study.span, YEAR)
    last = len(weather.dates) - horizon
    if last < context:
        raise UserError(
            f"--span {study.span}: needs {context} + {horizon} days of weather, there are {len(weather.dates)}; "
            "use a shorter span or longer weather"
        )
    rng = np.random.default_rng([seed, 2, case])
    first = int(rng.integers(context, last + 1))
    order = [DYNAMIC_FEATURES.index(name) for name in emulator.feature_names]
    rows = weather.values[first - context : first + horizon][:, order]
    scaled = emulator.dynamic_scaler.transform(rows)
    fluxes = truth[first : first + horizon].astype(np.float64)
    start = weather.dates[first]

    def stretch(days: int) -> Stretch:
        """The first `days` days from the start, without noise, all observed."""
        return stretch_from_arrays(
            scaled[:context], scaled[context : context + days], fluxes[:days], np.ones(days), start=start
        )

    clean, span = stretch(horizon), study.span
    noise = study.noise * rng.standard_normal((span, len(OBSERVABLE)))
    observed = stretch(span)
    mask = observed.mask & ~gap_days(span, study.gaps, rng)[:, None]
    sd = np.full_like(observed.sd, max(study.noise, 1e-6) if study.noise_known else np.nan)
    observed = replace(observed, observed=observed.observed + noise, mask=mask, sd=sd)
    annual = fluxes[:, TARGETS.index("nep")].mean() * DAYS_PER_YEAR
    return StudyCase(case, observed, clean, float(annual), order)


def gap_days(days: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """(day,) bool, True = missing: gaps of geometric length (mean 5 days) until `share` is missing; one day is left."""
    missing = np.zeros(days, dtype=bool)
    target = min(int(round(share * days)), days - 1)
    while missing.sum() < target:
        length = min(int(rng.geometric(1 / GAP_DAYS)), target - int(missing.sum()))
        start = int(rng.integers(0, days))
        missing[start : start + length] = True
    return missing


def run_cases(
    directory: Path, cases: Sequence[StudyCase], vectors: np.ndarray, inverter: StaticParameterInverter,
    weather: Weather, simulate: Simulate, refine: int, jobs: int | None, dask_scheduler: str | None,
) -> None:  # fmt: skip
    """Invert the cases that have no result yet, in parallel; each result is written as it is finished."""
    missing = [case for case in cases if not case_path(directory, case.number).is_file()]
    if not missing:
        return
    call = partial(_case, inverter, weather, simulate, refine)
    tasks = [(case, vectors[case.number]) for case in missing]
    if dask_scheduler:
        results = _on_cluster(dask_scheduler, call, tasks)
    else:
        results = side_by_side(jobs or joblib.cpu_count(), call, tasks)
    with progress(total=len(cases), initial=len(cases) - len(missing), desc="cases", unit="case") as bar:
        for result in results:
            write_json(case_path(directory, result["case"]), result)
            bar.update()


def _case(
    inverter: StaticParameterInverter, weather: Weather, simulate: Simulate, refine: int,
    task: tuple[StudyCase, np.ndarray],
) -> dict:  # fmt: skip
    return one_case(inverter, *task, weather, simulate, refine)


def side_by_side(jobs: int, call: Callable, tasks: Sequence) -> Iterator:
    """call(task) of every task as they finish, from processes of this machine, one thread each."""
    with joblib.parallel_config(n_jobs=jobs, backend="loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from parallel(joblib.delayed(call)(task) for task in tasks)


def _on_cluster(address: str, call: Callable[[tuple], dict], tasks: Sequence[tuple]) -> Iterator[dict]:
    """Results as they finish, from a Dask cluster. UserError when its workers died of a case."""
    client = connect(address)
    try:
        for i, result in on_cluster(client, call, tasks):
            if isinstance(result, WorkerLostError):
                raise UserError(
                    f"--dask-scheduler {address}: workers died of case {tasks[i][0].number} (out of memory?); give "
                    "them more memory, then the same command: what is finished is kept"
                )
            yield result
    finally:
        client.close()


def one_case(
    inverter: StaticParameterInverter, case: StudyCase, truth: np.ndarray, weather: Weather, simulate: Simulate,
    refine: int,
) -> dict:  # fmt: skip
    """Invert one case and compare with its truth; plain numbers for a JSON file."""
    # Starts and posterior draws of its own: shared draws would put the same sampling error into every case's ranks.
    inverter = inverter.with_seed(inverter.config.seed + CASE_SEEDS * (case.number + 1))
    prior = inverter.space.unit_to_physical(np.full(len(inverter.space), 0.5))
    result = inverter.invert_stretches(prior, [case.observed])
    if refine:
        refinement = Refinement(
            inverter, lambda values: simulate(values, jobs=1), weather, case.observed.context, case.feature_order
        )
        result, inverter, _ = refinement.run(result, [case.observed], refine)
    return {"case": case.number, "start": case.start, **against_truth(inverter, result, case, truth)}


def against_truth(
    inverter: StaticParameterInverter, result: InversionResult, case: StudyCase, truth: np.ndarray
) -> dict:
    """Errors, coverage, z-scores, ranks of every parameter, and the annual NEP."""
    posterior, space = result.posterior, inverter.space
    latent_truth = result.problem.latent.latent(truth)
    samples = posterior.latent[:, : len(latent_truth)]
    low, high = posterior.interval(0.9)
    chosen = np.linspace(0, len(samples) - 1, RANKS).astype(int)
    forward = inverter.forward([case.clean])
    draws = predictive_samples(
        result.problem, inverter.errors, posterior.latent[:PREDICTIVE], "nep", result.config.seed, forward
    )
    annual = draws.mean(axis=1) * DAYS_PER_YEAR
    annual_low, annual_high = np.quantile(annual, [0.05, 0.95])
    width = np.where(space.width > 0, space.width, 1.0)
    mean = posterior.physical.mean(axis=0)
    return {
        "true": truth.tolist(), "prior": result.prior.tolist(), "mode": result.optimized.tolist(),
        "estimated": mean.tolist(), "low_90": low.tolist(), "high_90": high.tolist(),
        "range_error_prior": (np.abs(result.prior - truth) / width).tolist(),
        "range_error_estimated": (np.abs(mean - truth) / width).tolist(),
        "range_error_mode": (np.abs(result.optimized - truth) / width).tolist(),
        "inside_90": [bool(x) for x in (truth >= low) & (truth <= high)],
        "z": ((latent_truth - samples.mean(axis=0)) / samples.std(axis=0)).tolist(),
        "rank": [int(r) for r in (samples[chosen] < latent_truth).sum(axis=0)],
        "sd_ratio": posterior.sd_ratio.tolist(),
        "annual_nep": {"true": case.annual_nep, "mean": float(annual.mean()), "low_90": float(annual_low),
                       "high_90": float(annual_high)},
        "directions": int((posterior.eigenvalues > 1).sum()), "modes": len(posterior.modes),
        "at_bounds": result.at_bounds, "cost": result.fit.cost, "observations": len(result.problem.observations),
        "error_model": {
            target: {key: float(value) for key, value in share.items()}
            for target, share in result.error_model.shares().items()
        },
        "emulator_scale": float(result.error_model.hyper.emulator_scale), "seconds": result.seconds,
        "iterations": len(result.fit.history) - 1, "reasons": list(result.fit.reasons), "posterior": posterior.method,
        "converged": None if posterior.diagnostics is None else posterior.diagnostics.converged,
    }  # fmt: skip


def case_table(results: Sequence[dict]) -> pd.DataFrame:
    """One row a case: errors, coverage, annual NEP, time."""
    rows = []
    for item in results:
        annual = item["annual_nep"]
        rows.append({
            "case": item["case"], "start": item["start"], "observations": item["observations"],
            "range_error_prior": np.mean(item["range_error_prior"]),
            "range_error_estimated": np.mean(item["range_error_estimated"]),
            "coverage_90": np.mean(item["inside_90"]), "informed": int(np.sum(np.array(item["sd_ratio"]) < INFORMED)),
            "annual_nep_true": annual["true"], "annual_nep_mean": annual["mean"], "annual_nep_low_90": annual["low_90"],
            "annual_nep_high_90": annual["high_90"], "emulator_scale": item["emulator_scale"], "modes": item["modes"],
            "cost": item["cost"], "seconds": item["seconds"], "iterations": item["iterations"],
        })  # fmt: skip
    return pd.DataFrame(rows)
