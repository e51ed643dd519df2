"""What test_inversion.py leaves in its result directory: every table and figure of an inversion or of a judgement."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from calibration.common.command_line import writing
from calibration.common.units import FLUX_UNIT
from calibration.emulator.trained import Emulator
from calibration.ensembles.command import baseline_file
from calibration.inversion.config import target_label
from calibration.inversion.data import OBSERVABLE, Stretch, combine_fluxes
from calibration.inversion.posterior import (
    identifiability,
    predict_days,
    predictive_samples,
    save_arviz,
    save_posterior,
)
from calibration.judgement.figures import (
    conflict_figure,
    identifiability_figure,
    loss_history,
    nep_comparison,
    parameter_changes,
)
from calibration.judgement.fit import Conflict, verdict
from calibration.judgement.report import (
    Judged,
    distance_sentence,
    endings,
    judge,
    parameter_values,
    posterior_table,
    save_snapshot,
    series_table,
    summary_text,
    with_observation_error,
    write_csv,
)  # fmt: skip
from calibration.judgement.simulator_check import ProcessModel, export_parameters, verify_estimate
from inverse_estimator import InversionResult, StaticParameterInverter

BAND_DRAWS = 200  # posterior draws behind predictive bands


@dataclass
class Case:
    """The data of one inversion."""

    fitted: list[Stretch]
    holdout: list[Stretch]  # the same stretches with the held-out days' mask, or empty
    description: str
    windows: int
    truth: np.ndarray | None = None  # (parameter,) in simulation mode


def report_inversion(
    case: Case,
    inverter: StaticParameterInverter,
    result: InversionResult,
    conflict: Conflict | None,
    directory: Path,
    facts: dict,
    emulator: Emulator,
    arguments,
    model: ProcessModel | None = None,
) -> None:
    """Write every table and figure of an inversion into `directory` and print the verdict."""
    posterior = result.posterior
    shares = result.error_model.shares() if result.problem.lambda_prior is None else {}
    judged, draws = judge_targets(case, inverter, result, shares)
    main_item = judged[0]
    informed = identifiability(posterior)["informed"] if posterior is not None else None
    share = shares.get(main_item.target, {})
    emulator_sd = share.get("emulator_sd", 0.0)
    sentence = verdict(
        main_item.table, conflict, informed, result.at_bounds, share.get("discrepancy_share", 0.0), main_item.target,
        result.offsets.get(main_item.target, 0.0), share["discrepancy_sd"] / emulator_sd if emulator_sd else np.inf,
    )  # fmt: skip
    simulator = None
    if arguments.verify:
        simulator, lines = verify_estimate(model, result, case.fitted, main_item)
        path = directory / "visit_parameters.txt"
        export_parameters(baseline_file(arguments), arguments.slots, result, path)
        facts |= lines
    emulator.check_ranges(result.optimized)
    distance = distance_sentence(inverter.space, emulator.training_parameters, result.optimized)
    metadata = metadata_of(case, result, sentence, arguments)

    write_csv(directory / "parameter_values.csv", parameter_values(result.names, result.prior, result.optimized))
    for path in (directory / "params_snapshot.json", arguments.param_save):
        if path:
            save_snapshot(path, result.names, result.prior, result.optimized, metadata)
    write_text(directory / "inversion_summary.txt", summary_text(sentence, facts, judged, conflict, result, distance))
    write_csv(directory / "skill.csv", main_item.table, index=True)
    write_history(result, directory / "loss_history.csv")
    for item in judged:
        table = series_table(item, simulator if item is main_item else None)
        write_csv(directory / f"{item.target}_comparison.csv", table)
    if conflict is not None:
        write_csv(directory / "prior_conflict.csv", conflict.table)
    if posterior is not None:
        write_posterior(directory, result, main_item, draws[main_item.target], share.get("observation_sd"))
    if not arguments.no_plots:
        ylabel = "cost (minus log posterior + constant)" if result.problem.is_likelihood else "cost"
        figure = loss_history(result.history, ylabel, f"{result.config.method}: {endings(result)}")
        save(figure, directory / "loss_history.png")
        save_comparisons(judged, sentence, directory, {main_item.target: simulator})
        save_parameter_figure(result, informed or [], sentence, directory / "parameter_changes.png", case.truth)
        save_posterior_figures(result, conflict, directory)
    print(f"{sentence}\nresults in {directory}")


def judge_targets(case: Case, inverter: StaticParameterInverter, result: InversionResult, shares: dict):
    """Judged fluxes (NEP first, then the other targets) and, by target, posterior-predictive draws (sample, day)."""
    problem, posterior = result.problem, result.posterior
    both = np.stack([problem.prior, result.fit.u])
    judged, draws = [], {}
    for target in observed_targets(case, result.config.targets):
        prior_flux, optimized_flux = predict_days(problem, both, target)
        noise = None
        if posterior is not None:
            latent = posterior.latent[:BAND_DRAWS]
            draws[target] = predictive_samples(problem, inverter.errors, latent, target, result.config.seed)
            noise = shares[target]["observation_sd"] if target in shares else None
        judged.append(judge(target, case.fitted, case.holdout, prior_flux, optimized_flux, draws.get(target), noise))
    return judged, draws


def observed_targets(case: Case, targets) -> list[str]:
    """NEP first, then the other targets, as far as they are observed on any fitted or held-out day."""
    stretches = [*case.fitted, *case.holdout]
    return [
        target
        for target in dict.fromkeys(("nep", *targets))
        if any(s.mask[:, OBSERVABLE.index(target)].any() for s in stretches)
    ]


def metadata_of(case: Case, result: InversionResult, sentence: str, arguments) -> dict:
    """What params_snapshot.json says beside the parameters."""
    return {
        "verdict": sentence, "method": result.config.method, "targets": list(result.config.targets),
        "offsets": {k: float(v) for k, v in result.offsets.items()}, "data": case.description, "windows": case.windows,
        "valid_observations": len(result.problem.observations), "cost": result.fit.cost,
        "seconds": round(result.seconds, 2), "unconstrained": bool(arguments.unconstrained),
        "at_bounds": result.at_bounds, "seed": result.config.seed, "artifacts": str(arguments.artifacts_dir),
        "config": str(arguments.config), "command": " ".join(sys.argv),
    }  # fmt: skip


def write_posterior(
    directory: Path, result: InversionResult, judged: Judged, draws: np.ndarray, noise_sd: float | None
) -> None:
    """posterior_summary.csv, posterior.npz and posterior.nc (ArviZ); draws: (sample, day) of the true flux."""
    posterior, target = result.posterior, judged.target
    write_csv(directory / "posterior_summary.csv", posterior_table(result))
    extra = {"dates": judged.dates.astype(str), f"{target}_samples": draws.astype(np.float32)}
    save_posterior(directory / "posterior.npz", posterior, **extra)
    predictive = {f"true_{target}": draws}
    if noise_sd is not None:
        predictive[target] = with_observation_error(draws, noise_sd, result.config.seed)
    observed = {target: np.where(judged.valid, judged.observed, np.nan)}
    save_arviz(directory / "posterior.nc", posterior, predictive, judged.dates, observed)


def save_posterior_figures(result: InversionResult, conflict: Conflict | None, directory: Path) -> None:
    """identifiability.png and prior_conflict.png, as far as there is a posterior and a check of the prior."""
    posterior = result.posterior
    if conflict is not None:
        label = target_label(result.config.targets[0])
        save(conflict_figure(conflict.table, conflict.sentence(), label), directory / "prior_conflict.png")
    if posterior is not None:
        names = [result.names[i] for i in posterior.free]
        figure = identifiability_figure(names, posterior.sd_ratio, posterior.correlation, posterior.eigenvalues)
        save(figure, directory / "identifiability.png")


def report_loaded(
    case: Case,
    inverter: StaticParameterInverter,
    prior: np.ndarray,
    optimized: np.ndarray,
    metadata: dict,
    directory: Path,
    facts: dict,
    emulator: Emulator,
    no_plots: bool = False,
) -> None:
    """Judge given parameters on the chosen windows: no inversion, the same tables and figures where they apply."""
    offsets = metadata.get("offsets") or {}
    with torch.no_grad():
        fluxes = inverter.forward(case.fitted)(torch.as_tensor(np.stack([prior, optimized])))
    judged = []
    for target in observed_targets(case, inverter.config.targets):
        values = torch.cat([combine_fluxes(part, target) for part in fluxes], dim=1).numpy()
        optimized_flux = values[1] + float(offsets.get(target, 0.0))
        judged.append(judge(target, case.fitted, case.holdout, values[0], optimized_flux))
    main_item = judged[0]
    row = main_item.table.loc[("fitted", "optimized")]
    label = target_label(main_item.target)
    better = main_item.table.loc["fitted"].drop(index=["prior", "optimized"])
    beaten = [name for name, other in better.iterrows() if other.rmse < row.rmse]
    sentence = (
        f"JUDGED, NOT FITTED: with the loaded parameters {label} has RMSE {row.rmse:.4f} {FLUX_UNIT}, R2 {row.r2:.2f} "
        f"on these days; {'worse than ' + ' and '.join(beaten) if beaten else 'better than constant and climatology'}."
    )
    facts["parameters"] = f"loaded, fitted to {metadata.get('data', 'unknown data')}"
    distance = distance_sentence(inverter.space, emulator.training_parameters, optimized)
    write_text(directory / "inversion_summary.txt", summary_text(sentence, facts, judged, None, None, distance))
    write_csv(directory / "parameter_values.csv", parameter_values(emulator.parameter_names, prior, optimized))
    save_snapshot(directory / "params_snapshot.json", emulator.parameter_names, prior, optimized, metadata)
    write_csv(directory / "skill.csv", main_item.table, index=True)
    for item in judged:
        write_csv(directory / f"{item.target}_comparison.csv", series_table(item))
    if not no_plots:
        save_comparisons(judged, sentence, directory, {})
        unit = inverter.space.physical_to_unit(np.stack([prior, optimized]))
        xlabel = "position in the trained range (0-1)"
        figure = parameter_changes(emulator.parameter_names, unit[0], unit[1], None, None, [], xlabel, sentence)
        save(figure, directory / "parameter_changes.png")
    print(f"{sentence}\nresults in {directory}")


def save_comparisons(judged: list[Judged], sentence: str, directory: Path, simulator: dict) -> None:
    """<flux>_comparison.png of every judged flux; simulator: target -> (day,) or None."""
    for item in judged:
        figure = nep_comparison(
            item.dates, item.observed, item.valid, item.fitted, item.prior, item.optimized, item.band, sentence,
            item.target, simulator.get(item.target), item.observed_band,
        )  # fmt: skip
        save(figure, directory / f"{item.target}_comparison.png")


def save_parameter_figure(result: InversionResult, informed: list[str], sentence: str, path: Path, truth) -> None:
    """parameter_changes.png: positions inside the bounds, or in scaled units without bounds."""
    latent = result.problem.latent
    names = latent.free_names

    def position(physical: np.ndarray) -> np.ndarray:
        """Physical (..., parameter) -> (..., free parameter): place inside the bounds, or scaled units."""
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
    rows = [
        {"iteration": e["iteration"], "best": e["cost"], **{f"start_{k}": c for k, c in enumerate(e["costs"])}}
        for e in result.history
    ]
    write_csv(path, pd.DataFrame(rows))


def save(figure, path: Path) -> None:
    """Save a figure, atomically."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
