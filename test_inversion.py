"""Invert a flux record for VISIT's parameters through the trained emulator, and judge the fit.

  simulation    the observations are one window of an ensemble run, whose parameters are known
  observation   the observations come from a window file (build_observation_windows.py)

Examples
  python test_inversion.py --mode simulation --sample-id 0 --window-index 0
  python test_inversion.py --obs-index 0 --result-dir results/first
  python test_inversion.py --param-load results/first/params_snapshot.json \\
      --obs-range-start 2012-01-01 --obs-range-end 2012-12-31 --result-dir results/first_year
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from command_line import REPOSITORY, UserError, iso_date, make_parser, run, warn, writing
from emulator import Emulator, load_emulator
from error_model import make_error_model
from fit_judgement import Conflict, prior_conflict, verdict
from inverse_estimator import InversionResult, StaticParameterInverter
from inversion_config import DEFAULT_CONFIG, METHODS, load_inversion_config, override, target_label
from inversion_data import OBSERVABLE, Stretch
from inversion_figures import conflict_figure, identifiability_figure, loss_history, nep_comparison, parameter_changes
from inversion_inputs import (
    load_matching_ensemble,
    observation_stretches,
    prior_parameters,
    simulation_window,
    trained_space,
)  # fmt: skip
from inversion_report import (
    Judged,
    distance_sentence,
    judge,
    load_snapshot,
    parameter_values,
    posterior_table,
    save_snapshot,
    series_table,
    summary_text,
    write_csv,
)  # fmt: skip
from posterior import identifiability, predict_days, predictive_samples, save_arviz, save_posterior

BAND_DRAWS = 200  # posterior draws behind predictive bands


@dataclass
class Case:
    """The data of one inversion."""

    fitted: list[Stretch]
    holdout: list[Stretch]  # the same stretches with the held-out days' mask, or empty
    description: str
    windows: int
    truth: np.ndarray | None = None  # (parameter,) in simulation mode
    facts: dict = field(default_factory=dict)


def main() -> int:
    arguments = parse_arguments()
    begin = time.perf_counter()
    emulator = load_emulator(arguments.artifacts_dir, arguments.device)
    config = override(
        load_inversion_config(arguments.config), method=arguments.method, target_variable=arguments.targets,
        nuisance=arguments.nuisance, starts=arguments.starts, seed=arguments.seed,
    )  # fmt: skip
    space = trained_space(emulator, arguments.data_dir)
    inverter = StaticParameterInverter.from_emulator(emulator, config, arguments.config, space)
    case = load_case(arguments, emulator)
    prior, prior_source = prior_parameters(emulator, arguments.data_dir, arguments.obs_prior_sample)
    results = Path(arguments.result_dir)

    if arguments.param_load:
        _, optimized, metadata = load_snapshot(arguments.param_load, emulator.parameter_names)
        if arguments.obs_prior_sample is None:
            prior = load_snapshot(arguments.param_load, emulator.parameter_names)[0]
            prior_source = f"the prior of {arguments.param_load}"
        emulator.check_ranges(optimized)
        report_loaded(
            case, inverter, prior, optimized, metadata, results, facts_of(arguments, case, prior_source), emulator
        )
    else:
        conflict = conflict_before_fit(inverter, case, prior, arguments)
        result = inverter.invert_stretches(
            prior, case.fitted, arguments.unconstrained, arguments.free, arguments.fix or ()
        )
        if arguments.refine:
            from refine import refine_inversion

            result = refine_inversion(arguments, emulator, inverter, case.fitted, result, results)
        report_inversion(
            case, inverter, result, conflict, results, facts_of(arguments, case, prior_source), emulator, arguments
        )
    print(f"done in {time.perf_counter() - begin:.1f} s")
    return 0


def load_case(arguments: argparse.Namespace, emulator: Emulator) -> Case:
    """Observed days from an ensemble run or from a window file."""
    if arguments.mode == "simulation":
        ensemble = load_matching_ensemble(emulator, arguments.data_dir)
        stretch, truth = simulation_window(emulator, ensemble, arguments.sample_id, arguments.window_index)
        text = f"run {arguments.sample_id} of {arguments.data_dir}, window {arguments.window_index}"
        return Case([stretch], [], f"{text} ({stretch.dates[0]} to {stretch.dates[-1]})", 1, truth)
    holdout = (arguments.holdout_start, arguments.holdout_end) if arguments.holdout_start else None
    fitted, held, count = observation_stretches(
        emulator, arguments.obs_npz, arguments.obs_index, arguments.obs_range_start, arguments.obs_range_end,
        arguments.obs_range_step, arguments.max_obs_windows, holdout, arguments.rescale,
    )  # fmt: skip
    valid = [s.dates[s.mask.any(axis=1)] for s in fitted]
    valid = np.concatenate(valid)
    if not len(valid):
        raise UserError(f"{arguments.obs_npz}: no valid observation in the chosen windows; choose other dates")
    return Case(fitted, held, f"{arguments.obs_npz}, observed days {valid.min()} to {valid.max()}", count)


def conflict_before_fit(
    inverter: StaticParameterInverter, case: Case, prior: np.ndarray, arguments: argparse.Namespace
) -> Conflict | None:
    """The prior-predictive check of the first target, printed before anything is fitted."""
    if arguments.unconstrained:
        return None
    problem = inverter.problem(prior, case.fitted, False, arguments.free, arguments.fix or ())
    target = inverter.config.targets[0]
    rng = np.random.default_rng(inverter.config.seed)
    limit = problem.latent.limit
    latent = np.clip(problem.prior + rng.standard_normal((BAND_DRAWS, problem.size)), -limit, limit)
    latent[:, len(problem.latent.free) :] = 0.0  # the data meet the model itself, without a fitted constant
    flux = predict_days(problem, latent, target)
    column = OBSERVABLE.index(target)
    days = np.concatenate([s.mask[:, column] for s in case.fitted])
    dates = np.concatenate([s.dates for s in case.fitted])
    observed = np.concatenate([s.observed[:, column] for s in case.fitted])
    errors = make_error_model(problem.observations, inverter.errors, inverter.config.error_model)
    here = problem.observations.of(target)
    variance = errors.observation_variance[here]
    if errors.emulator is not None:
        variance = variance + np.diag(errors.emulator)[here]
    # observation_vector lists the days of a target in the order of the stretches, as `days` does
    noisy = flux[:, days] + np.sqrt(variance) * rng.standard_normal((BAND_DRAWS, days.sum()))
    conflict = prior_conflict(dates[days], observed[days], noisy, flux[:, days])
    print(f"prior against data: {conflict.sentence()}")
    if conflict.exists:
        warn(
            f"{target_label(target)} conflicts with the prior; months: {', '.join(conflict.months) or 'none by itself'}"
        )
    return conflict


def report_inversion(
    case: Case,
    inverter: StaticParameterInverter,
    result: InversionResult,
    conflict: Conflict | None,
    directory: Path,
    facts: dict,
    emulator: Emulator,
    arguments: argparse.Namespace,
) -> None:
    """Write every table and figure of an inversion."""
    problem, posterior = result.problem, result.posterior
    both = np.stack([problem.prior, result.fit.u])
    shares = result.error_model.shares() if problem.lambda_prior is None else None
    judged, bands = [], {}
    for target in dict.fromkeys(("nep", *result.config.targets)):
        if not any(s.mask[:, OBSERVABLE.index(target)].any() for s in [*case.fitted, *case.holdout]):
            continue
        prior_flux, optimized_flux = predict_days(problem, both, target)
        draws = noise = None
        if posterior is not None:
            draws = predictive_samples(
                problem, inverter.errors, posterior.latent[:BAND_DRAWS], target, result.config.seed
            )
            noise = shares[target]["observation_sd"] if target in shares else None
        bands[target] = draws
        judged.append(judge(target, case.fitted, case.holdout, prior_flux, optimized_flux, draws, noise))
    main_item = next((item for item in judged if item.target == "nep"), judged[0])
    informed = identifiability(posterior)["informed"] if posterior is not None else None
    sentence = verdict(
        main_item.table, conflict, informed, result.at_bounds,
        shares[main_item.target]["discrepancy_share"] if shares and main_item.target in shares else 0.0,
        main_item.target, result.offsets.get(main_item.target, 0.0),
    )  # fmt: skip
    simulator = None
    if arguments.verify:
        from simulator_check import export_parameters, verify_estimate

        simulator, lines = verify_estimate(arguments, emulator, result, case.fitted, main_item)
        export_parameters(arguments, result, directory / "visit_parameters.txt")
        facts |= lines
    emulator.check_ranges(result.optimized)
    distance = distance_sentence(inverter.space, emulator.training_parameters, result.optimized)
    metadata = {
        "verdict": sentence, "method": result.config.method, "targets": list(result.config.targets),
        "offsets": {k: float(v) for k, v in result.offsets.items()}, "data": case.description, "windows": case.windows,
        "valid_observations": len(problem.observations), "cost": result.fit.cost, "seconds": round(result.seconds, 2),
        "unconstrained": bool(arguments.unconstrained), "at_bounds": result.at_bounds, "seed": result.config.seed,
        "artifacts": str(arguments.artifacts_dir), "config": str(arguments.config), "command": " ".join(sys.argv),
    }  # fmt: skip

    write_csv(directory / "parameter_values.csv", parameter_values(result.names, result.prior, result.optimized))
    save_snapshot(directory / "params_snapshot.json", result.names, result.prior, result.optimized, metadata)
    if arguments.param_save:
        save_snapshot(arguments.param_save, result.names, result.prior, result.optimized, metadata)
    with writing(directory / "inversion_summary.txt") as temporary:
        temporary.write_text(summary_text(sentence, facts, judged, conflict, result, distance), encoding="utf-8")
    write_csv(directory / "skill.csv", main_item.table, index=True)
    ylabel = "cost (minus log posterior + constant)" if problem.is_likelihood else "cost"
    save(loss_history(result.history, ylabel, _ended(result)), directory / "loss_history.png")
    write_history(result, directory / "loss_history.csv")
    write_comparisons(judged, sentence, directory, {main_item.target: simulator})
    save_parameter_figure(result, informed or [], sentence, directory / "parameter_changes.png", case.truth)
    if conflict is not None:
        write_csv(directory / "prior_conflict.csv", conflict.table)
        label = target_label(result.config.targets[0])
        save(conflict_figure(conflict.table, conflict.sentence(), label), directory / "prior_conflict.png")
    if posterior is not None:
        write_csv(directory / "posterior_summary.csv", posterior_table(result))
        save_posterior(
            directory / "posterior.npz",
            posterior,
            dates=main_item.dates.astype(str),
            nep_samples=bands[main_item.target],
        )
        save_arviz(directory / "posterior.nc", posterior, bands[main_item.target], main_item.dates, main_item.observed)
        names = [result.names[i] for i in posterior.free]
        save(
            identifiability_figure(names, posterior.sd_ratio, posterior.correlation, posterior.eigenvalues),
            directory / "identifiability.png",
        )
    print(sentence)
    print(f"results in {directory}")


def report_loaded(
    case: Case,
    inverter: StaticParameterInverter,
    prior: np.ndarray,
    optimized: np.ndarray,
    metadata: dict,
    directory: Path,
    facts: dict,
    emulator: Emulator,
) -> None:
    """Judge given parameters on the chosen windows: no inversion, the same tables and figures where they apply."""
    import torch

    from inversion_data import combine_fluxes

    offsets = metadata.get("offsets") or {}
    with torch.no_grad():
        fluxes = inverter.forward(case.fitted)(torch.as_tensor(np.stack([prior, optimized])))
    judged = []
    for target in dict.fromkeys(("nep", *inverter.config.targets)):
        if not any(s.mask[:, OBSERVABLE.index(target)].any() for s in [*case.fitted, *case.holdout]):
            continue
        values = torch.cat([combine_fluxes(part, target) for part in fluxes], dim=1).numpy()
        judged.append(judge(target, case.fitted, case.holdout, values[0], values[1] + float(offsets.get(target, 0.0))))
    main_item = judged[0]
    row = main_item.table.loc[("fitted", "optimized")]
    label = target_label(main_item.target)
    better = main_item.table.loc["fitted"].drop(index=["prior", "optimized"])
    beaten = [name for name, other in better.iterrows() if other.rmse < row.rmse]
    sentence = (
        f"JUDGED, NOT FITTED: with the loaded parameters {label} has RMSE {row.rmse:.4f} Mg C ha-1 day-1 and R2 {row.r2:.2f}"
        f" on these days; {'worse than ' + ' and '.join(beaten) if beaten else 'better than constant and climatology'}."
    )
    facts["parameters"] = f"loaded, fitted to {metadata.get('data', 'unknown data')}"
    distance = distance_sentence(inverter.space, emulator.training_parameters, optimized)
    with writing(directory / "inversion_summary.txt") as temporary:
        temporary.write_text(summary_text(sentence, facts, judged, None, None, distance), encoding="utf-8")
    write_csv(directory / "parameter_values.csv", parameter_values(emulator.parameter_names, prior, optimized))
    save_snapshot(directory / "params_snapshot.json", emulator.parameter_names, prior, optimized, metadata)
    write_csv(directory / "skill.csv", main_item.table, index=True)
    write_comparisons(judged, sentence, directory, {})
    unit = inverter.space.physical_to_unit(np.stack([prior, optimized]))
    save(
        parameter_changes(
            emulator.parameter_names, unit[0], unit[1], None, None, [], "position in the trained range (0-1)", sentence
        ),
        directory / "parameter_changes.png",
    )
    print(sentence)
    print(f"results in {directory}")


def write_comparisons(judged: list[Judged], sentence: str, directory: Path, simulator: dict) -> None:
    """<flux>_comparison.png and .csv for every judged flux."""
    for item in judged:
        series = simulator.get(item.target)
        figure = nep_comparison(
            item.dates, item.observed, item.valid, item.fitted, item.prior, item.optimized, item.band, sentence,
            item.target, series,
        )  # fmt: skip
        save(figure, directory / f"{item.target}_comparison.png")
        write_csv(directory / f"{item.target}_comparison.csv", series_table(item, series))


def save_parameter_figure(result: InversionResult, informed: list[str], sentence: str, path: Path, truth) -> None:
    """parameter_changes.png: positions inside the bounds, or in scaled units without bounds."""
    latent = result.problem.latent
    names = latent.free_names

    def position(physical: np.ndarray) -> np.ndarray:
        if latent.space is not None:
            return latent.unit(physical)
        return (physical[..., latent.free] - result.prior[latent.free]) / latent.scale[latent.free]

    low = high = None
    if result.posterior is not None:
        low, high = np.quantile(position(result.posterior.physical), [0.05, 0.95], axis=0)
    xlabel = (
        "position in its range (0-1)" if latent.space is not None else "distance from the prior (sd of the ensemble)"
    )
    known = None if truth is None else position(truth)
    save(
        parameter_changes(
            names, position(result.prior), position(result.optimized), low, high, informed, xlabel, sentence, known
        ),
        path,
    )


def write_history(result: InversionResult, path: Path) -> None:
    """loss_history.csv: iteration, best cost, cost of every start."""
    import pandas as pd

    rows = [
        {"iteration": e["iteration"], "best": e["cost"], **{f"start_{k}": c for k, c in enumerate(e["costs"])}}
        for e in result.history
    ]
    write_csv(path, pd.DataFrame(rows))


def save(figure, path: Path) -> None:
    """Save a figure, atomically."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def facts_of(arguments: argparse.Namespace, case: Case, prior_source: str) -> dict:
    """The head of the summary."""
    return {
        "mode": arguments.mode, "data": case.description, "windows": case.windows, "prior": prior_source,
        "emulator": arguments.artifacts_dir, "bounds": "none (unconstrained)" if arguments.unconstrained else "as configured",
    }  # fmt: skip


def _ended(result: InversionResult) -> str:
    counts = {reason: result.fit.reasons.count(reason) for reason in result.fit.reasons}
    return f"{result.config.method}: " + ", ".join(f"{reason} ({count})" for reason, count in counts.items())


def parse_arguments() -> argparse.Namespace:
    """The command line; combinations that make no sense are refused before anything is read."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--mode",
        choices=("simulation", "observation"),
        help="where the observations come from (default: observation when an --obs-* flag is given, else simulation)",
    )
    add("--config", default=str(DEFAULT_CONFIG), help="inversion YAML")
    add("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="trained emulator")
    add(
        "--data-dir",
        default=str(REPOSITORY / "data"),
        help="ensemble: parameter_summary.csv (prior), runs (simulation)",
    )
    add("--result-dir", default=str(REPOSITORY / "results" / "inversion"), help="folder for tables and figures")
    add("--device", default="cpu", help="cpu, cuda, cuda:1")
    group = parser.add_argument_group("simulation mode")
    group.add_argument("--sample-id", type=int, default=0, help="run of the ensemble")
    group.add_argument("--window-index", type=int, default=0, help="window of the test period, 0 = its first day")
    group = parser.add_argument_group("observation mode")
    group.add_argument("--obs-npz", help="window file (default: observations/obs_windows.npz)")
    group.add_argument("--obs-index", type=int, help="one window of the file (default: 0)")
    group.add_argument(
        "--obs-range-start", type=iso_date, help="first day, YYYY-MM-DD: windows that start in the range"
    )
    group.add_argument("--obs-range-end", type=iso_date, help="last day, included")
    group.add_argument("--obs-range-step", type=int, default=1, help="take every n-th window of the range")
    group.add_argument("--max-obs-windows", type=int, help="take at most the first n windows (default: all)")
    group.add_argument(
        "--obs-prior-sample", type=int, help="run whose parameters are the prior (default: mean of all runs)"
    )
    group.add_argument(
        "--rescale", action="store_true", help="convert windows made with another scaler instead of refusing"
    )
    group.add_argument("--holdout-start", type=iso_date, help="first day that is kept out of the fit and judged")
    group.add_argument("--holdout-end", type=iso_date, help="last day held out, included")
    group = parser.add_argument_group("the fit")
    group.add_argument("--method", choices=METHODS, help="overrides the configuration")
    group.add_argument("--targets", help="fluxes to fit, comma-separated: nep,gpp,npp,rh,er (default: configuration)")
    group.add_argument("--free", nargs="+", metavar="NAME", help="estimate only these parameters")
    group.add_argument("--fix", nargs="+", metavar="NAME", help="keep these at the prior")
    group.add_argument(
        "--nuisance", choices=("none", "offset"), help="offset: fit a constant along with the parameters"
    )
    group.add_argument("--starts", type=int, help="starting points in one batch (default: configuration)")
    group.add_argument("--seed", type=int, help="seed of starts and samples (default: configuration)")
    group.add_argument("--unconstrained", action="store_true", help="no bounds, no prior term (and so no posterior)")
    group.add_argument("--param-save", metavar="JSON", help="also write the parameter snapshot here")
    group.add_argument("--param-load", metavar="JSON", help="no inversion: judge the parameters of a snapshot")
    group = parser.add_argument_group("the process model itself")
    group.add_argument(
        "--verify", action="store_true", help="re-run the simulator with the estimate; write VISIT's parameter file"
    )
    group.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="N",
        help="correct the emulator with N simulator runs a round at draws from the posterior (0 = off)",
    )
    group.add_argument("--weather", help="weather of the whole ensemble (default: that of --data-dir), VISIT's units")
    group.add_argument("--site", help="site YAML (default: configs/sites/lhp.yaml)")
    group.add_argument(
        "--visit-template", help="VISIT's baseline parameter file, to be filled by slot (default: a CSV)"
    )
    arguments = parser.parse_args()
    observing = [arguments.obs_npz, arguments.obs_range_start, arguments.obs_range_end, arguments.obs_index]
    if arguments.mode is None:
        arguments.mode = "observation" if any(value is not None for value in observing) else "simulation"
    arguments.obs_npz = arguments.obs_npz or str(REPOSITORY / "observations" / "obs_windows.npz")
    if (arguments.holdout_start is None) != (arguments.holdout_end is None):
        raise UserError("--holdout-start and --holdout-end belong together; give both (YYYY-MM-DD)")
    if arguments.holdout_start and arguments.holdout_start > arguments.holdout_end:
        raise UserError(f"--holdout-start {arguments.holdout_start} lies after --holdout-end {arguments.holdout_end}")
    if arguments.obs_index is not None and (arguments.obs_range_start or arguments.obs_range_end):
        raise UserError("--obs-index chooses one window and --obs-range-* many; give one of them")
    for name, least in (("obs_range_step", 1), ("max_obs_windows", 1), ("refine", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more")
    if arguments.param_load and (arguments.refine or arguments.verify):
        raise UserError("--param-load judges given parameters; --refine and --verify belong to an inversion")
    return arguments


if __name__ == "__main__":
    run(main)
