"""A recovery study: many known truths, made by the simulator, inverted; are the intervals right, is anything learned?

Called by evaluate_parameter_recovery.py --cases N. Each case has its own parameter vector (drawn uniformly in the
trained ranges, never trained on), first day, noise and gaps, all set by the seed and the case's number, so that an
interrupted study continues where it stopped and gives the same result.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, progress, read_json, write_json, writing
from calibration.common.sites import DEFAULT_SITE, load_site
from calibration.common.units import DAYS_PER_YEAR, DYNAMIC_FEATURES, TARGETS
from calibration.emulator.trained import Emulator
from calibration.inversion.data import OBSERVABLE, Stretch, stretch_from_arrays
from calibration.inversion.posterior import predictive_samples
from calibration.judgement.recovery_statistics import study_summary, write_study_figures
from calibration.judgement.refine import Refinement
from calibration.judgement.simulator_check import driving_weather, simulate_vectors
from calibration.weather.daily import Weather
from inverse_estimator import InversionResult, StaticParameterInverter

YEAR = 365  # days of the annual NEP that is predicted from shorter spans
RANKS = 99  # posterior samples that a truth is ranked among
PREDICTIVE = 150  # posterior draws behind the annual NEP
GAP_DAYS = 5  # mean length of a gap
CASE_SEEDS = 7919  # between the seeds of two cases
SETTINGS = "study_settings.json"


def run_study(arguments: argparse.Namespace, emulator: Emulator, inverter: StaticParameterInverter) -> int:
    """Run or continue the study of the command line; write tables, recovery_study.json and figures."""
    directory = Path(arguments.result_dir)
    site = load_site(arguments.site or DEFAULT_SITE)
    weather = driving_weather(arguments.weather, arguments.data_dir, site, emulator)
    settings = study_settings(arguments, emulator, inverter, weather)
    prepare_directory(directory, settings, arguments.overwrite)

    vectors = case_vectors(inverter, arguments.cases, inverter.config.seed)
    truth = simulated_truth(directory / "truth.npz", vectors, emulator, weather, site, arguments.jobs)
    cases = [
        make_case(i, truth[i], emulator, weather, arguments, inverter.config.seed, inverter.config.targets)
        for i in range(arguments.cases)
    ]
    run_cases(directory, cases, vectors, inverter, weather, site, arguments)
    results = [read_json(case_path(directory, i)) for i in range(arguments.cases)]
    summary = study_summary(results, emulator.parameter_names, settings)
    write_json(directory / "recovery_study.json", summary)
    with writing(directory / "recovery_cases.csv") as temporary:
        case_table(results).to_csv(temporary, index=False)
    with writing(directory / "recovery_parameters.csv") as temporary:
        pd.DataFrame(summary["parameters"]).T.rename_axis("param_name").to_csv(temporary)
    if not arguments.no_plots:
        write_study_figures(directory, summary, results, emulator.parameter_names)
    print(
        f"{summary['cases']} cases of {summary['span_days']} days, noise {summary['noise']}: coverage of 90 percent "
        f"intervals {100 * summary['coverage_90']:.1f} percent, "
        f"annual NEP {100 * summary['annual_nep_coverage_90']:.1f}; "
        f"error / range {summary['range_error_estimated']:.3f} (prior {summary['range_error_prior']:.3f}); "
        f"{summary['informed_parameters']} parameters informed; {summary['seconds_per_case']:.1f} s a case"
    )
    print(f"results in {directory}")
    return 0


def study_settings(arguments, emulator: Emulator, inverter: StaticParameterInverter, weather: Weather) -> dict:
    """What defines a study: the same settings continue it, others need another folder or --overwrite."""
    config = inverter.config
    checkpoint = hashlib.sha256(np.concatenate([w.detach().cpu().numpy().ravel() for w in emulator.model.parameters()]))
    return {
        "cases": arguments.cases, "span_days": arguments.span, "noise": arguments.noise, "gaps": arguments.gaps,
        "noise_known": not arguments.noise_unknown, "targets": list(config.targets), "seed": config.seed,
        "method": config.method, "starts": config.number_of_starts, "refine": arguments.refine,
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
    """(case, parameter) physical, uniform in the trained ranges, ties held; case i is the same for any count."""
    space = inverter.space
    unit = np.stack([np.random.default_rng([seed, 1, i]).random(len(space)) for i in range(count)])
    return space.unit_to_physical(unit)


def simulated_truth(path: Path, vectors: np.ndarray, emulator: Emulator, weather: Weather, site, jobs) -> np.ndarray:
    """The simulator's fluxes (case, day, 4), Mg C ha-1 day-1, made once and kept in `path`."""
    fluxes = np.empty((0, len(weather.dates), len(TARGETS)), dtype=np.float32)
    if path.is_file():
        with np.load(path) as archive:
            count = min(len(archive["parameters"]), len(vectors))
            if np.allclose(archive["parameters"][:count], vectors[:count], rtol=1e-12):
                fluxes = archive["fluxes"][:count]
    for first in progress(range(len(fluxes), len(vectors), 20), desc="truths (simulator)", unit="batch"):
        batch = vectors[first : first + 20]
        made = simulate_vectors(batch, emulator.parameter_names, weather, site, jobs).astype(np.float32)
        fluxes = np.concatenate([fluxes, made])
        with writing(path) as temporary:
            np.savez(temporary, parameters=vectors[: len(fluxes)], fluxes=fluxes)
    return fluxes


def make_case(
    case: int, truth: np.ndarray, emulator: Emulator, weather: Weather, arguments, seed: int, targets: Sequence[str]
) -> dict:
    """Observed stretch, the same stretch without noise over the annual horizon, and the true annual NEP of one case."""
    context = emulator.configuration.evaluation.context_days
    horizon = max(arguments.span, YEAR)
    last = len(weather.dates) - horizon
    if last < context:
        raise UserError(
            f"--span {arguments.span}: needs {context} + {horizon} days of weather, there are {len(weather.dates)}; "
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

    clean, span = stretch(horizon), arguments.span
    noise = arguments.noise * rng.standard_normal((span, len(OBSERVABLE)))
    observed = stretch(span)
    mask = observed.mask & ~gap_days(span, arguments.gaps, rng)[:, None]
    sd = np.full_like(observed.sd, np.nan if arguments.noise_unknown else max(arguments.noise, 1e-6))
    observed = replace(observed, observed=observed.observed + noise, mask=mask, sd=sd)
    annual = fluxes[:, TARGETS.index("nep")].mean() * DAYS_PER_YEAR
    return {
        "case": case, "observed": observed, "clean": clean, "annual_nep": float(annual), "start": str(start),
        "order": order,
    }  # fmt: skip


def gap_days(days: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """(day,) bool, True = missing: gaps of geometric length (mean 5 days) until `share` is missing; one day is left."""
    missing = np.zeros(days, dtype=bool)
    target = min(int(round(share * days)), days - 1)
    while missing.sum() < target:
        length = min(int(rng.geometric(1 / GAP_DAYS)), target - int(missing.sum()))
        start = int(rng.integers(0, days))
        missing[start : start + length] = True
    return missing


def run_cases(directory: Path, cases, vectors, inverter, weather: Weather, site, arguments) -> None:
    """Invert the cases that have no result yet, in parallel; each result is written as it is finished."""
    missing = [case for case in cases if not case_path(directory, case["case"]).is_file()]
    if not missing:
        return
    call = partial(_case, inverter, weather, site, arguments.refine)
    tasks = [(case, vectors[case["case"]]) for case in missing]
    if arguments.dask_scheduler:
        results = _on_cluster(arguments.dask_scheduler, call, tasks)
    else:
        results = _here(arguments.jobs or joblib.cpu_count(), call, tasks)
    with progress(total=len(cases), initial=len(cases) - len(missing), desc="cases", unit="case") as bar:
        for result in results:
            write_json(case_path(directory, result["case"]), result)
            bar.update()


def _case(inverter: StaticParameterInverter, weather: Weather, site, refine: int, task: tuple) -> dict:
    return one_case(inverter, *task, weather, site, refine)


def _here(jobs: int, call: Callable[[tuple], dict], tasks: Sequence[tuple]) -> Iterator[dict]:
    """Results as they finish, from processes of this machine."""
    with joblib.parallel_config(n_jobs=jobs, backend="loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from parallel(joblib.delayed(call)(task) for task in tasks)


def _on_cluster(address: str, call: Callable[[tuple], dict], tasks: Sequence[tuple]) -> Iterator[dict]:
    """Results as they finish, from a Dask cluster. UserError when its workers died of a case."""
    from calibration.ensembles.cluster import WorkerLostError, connect, on_cluster

    client = connect(address)
    try:
        for i, result in on_cluster(client, call, tasks):
            if isinstance(result, WorkerLostError):
                raise UserError(
                    f"--dask-scheduler {address}: workers died of case {tasks[i][0]['case']} (out of memory?); give "
                    "them more memory, then the same command: what is finished is kept"
                )
            yield result
    finally:
        client.close()


def one_case(
    inverter: StaticParameterInverter, case: dict, truth: np.ndarray, weather: Weather, site, refine: int
) -> dict:
    """Invert one case and compare with its truth; plain numbers for a JSON file."""
    # Starts and posterior draws of its own: shared draws would put the same sampling error into every case's ranks.
    inverter = copy(inverter)
    inverter.config = replace(inverter.config, seed=inverter.config.seed + CASE_SEEDS * (case["case"] + 1))
    prior = inverter.space.unit_to_physical(np.full(len(inverter.space), 0.5))
    result = inverter.invert_stretches(prior, [case["observed"]])
    if refine:
        refinement = Refinement(
            inverter, lambda values: simulate_vectors(values, result.names, weather, site, jobs=1), weather,
            case["observed"].context, case["order"],
        )  # fmt: skip
        result, inverter, _ = refinement.run(result, [case["observed"]], refine)
    return {"case": case["case"], "start": case["start"], **compare(inverter, result, case, truth)}


def compare(inverter: StaticParameterInverter, result: InversionResult, case: dict, truth: np.ndarray) -> dict:
    """Errors, coverage, z-scores, ranks of every parameter, and the annual NEP."""
    posterior, space = result.posterior, inverter.space
    latent_truth = result.problem.latent.latent(truth)
    samples = posterior.latent[:, : len(latent_truth)]
    low, high = posterior.interval(0.9)
    chosen = np.linspace(0, len(samples) - 1, RANKS).astype(int)
    forward = inverter.forward([case["clean"]])
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
        "annual_nep": {"true": case["annual_nep"], "mean": float(annual.mean()), "low_90": float(annual_low),
                       "high_90": float(annual_high)},
        "directions": int((posterior.eigenvalues > 1).sum()), "modes": len(posterior.modes),
        "at_bounds": result.at_bounds, "cost": result.fit.cost, "observations": len(result.problem.observations),
        "error_model": {
            target: {key: float(value) for key, value in share.items()}
            for target, share in result.error_model.shares().items()
        },
        "emulator_scale": float(result.error_model.hyper.emulator_scale), "seconds": result.seconds,
        "iterations": len(result.history) - 1, "reasons": list(result.fit.reasons),
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
            "coverage_90": np.mean(item["inside_90"]), "informed": int(np.sum(np.array(item["sd_ratio"]) < 0.7)),
            "annual_nep_true": annual["true"], "annual_nep_mean": annual["mean"], "annual_nep_low_90": annual["low_90"],
            "annual_nep_high_90": annual["high_90"], "emulator_scale": item["emulator_scale"], "modes": item["modes"],
            "cost": item["cost"], "seconds": item["seconds"], "iterations": item["iterations"],
        })  # fmt: skip
    return pd.DataFrame(rows)
