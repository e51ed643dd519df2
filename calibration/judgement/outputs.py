"""Every file that test_inversion.py leaves in its result directory, from a judgement that is made."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.common.command_line import write_csv, write_text
from calibration.common.figure_style import save_figure
from calibration.common.parameters import ParameterSpace
from calibration.inversion.config import target_label
from calibration.inversion.posterior import save_arviz, save_posterior
from calibration.judgement.figures import (
    conflict_figure,
    identifiability_figure,
    loss_history,
    nep_comparison,
    parameter_changes,
    residual_months,
    residuals_by_month,
)
from calibration.judgement.fit import climatology_baseline, constant_baseline
from calibration.judgement.judge import JUDGED, Judged, Judgement, day_spans, with_observation_error
from calibration.judgement.report import endings, summary_text
from calibration.judgement.tables import change_table, posterior_table, save_snapshot, save_truth, series_table
from inverse_estimator import InversionResult


def write_outputs(
    judgement: Judgement,
    directory: Path,
    facts: dict[str, Any],
    metadata: dict[str, Any],
    distance: str,
    space: ParameterSpace,
    simulator: np.ndarray | None = None,
    snapshot: str | Path | None = None,
    plots: bool = True,
) -> None:
    """Write every table and figure of a judgement into `directory`.

    facts: head of the summary; metadata: what params_snapshot.json says beside the parameters; distance: sentence on
    the nearest training vector; space: the trained ranges; simulator: (day,) the process model's run of the main flux,
    Mg C ha-1 day-1; snapshot: a second place for params_snapshot.json.
    """
    result = judgement.result
    write_csv(directory / "parameter_values.csv", change_table(judgement.names, judgement.prior, judgement.optimized))
    for path in (directory / "params_snapshot.json", snapshot):
        if path:
            save_snapshot(path, judgement.names, judgement.prior, judgement.optimized, metadata)
    case = judgement.case
    truth = None if case.truth is None else dict(zip(judgement.names, case.truth, strict=True))
    save_truth(directory, truth, case.description)
    write_text(directory / "inversion_summary.txt", summary_text(judgement, facts, distance))
    write_csv(directory / "skill.csv", judgement.main.table, index=True)
    for item in judgement.fluxes:
        table = series_table(item, simulator if item is judgement.main else None)
        write_csv(directory / f"{item.target}_comparison.csv", table)
        write_csv(directory / f"{item.target}_residuals_by_month.csv", monthly_residuals(item))
    if judgement.conflict is not None:
        write_csv(directory / "prior_conflict.csv", judgement.conflict.table)
    if result is not None:
        write_history(result, directory / "loss_history.csv")
        if result.posterior is not None:
            write_posterior(directory, judgement)
    if plots:
        save_figures(judgement, directory, space, simulator)


def inversion_metadata(judgement: Judgement) -> dict[str, Any]:
    """What params_snapshot.json says of an inversion beside the parameters; the script adds how it was called."""
    result, case = judgement.result, judgement.case
    return {
        "verdict": judgement.verdict, "method": result.config.method, "targets": list(result.config.targets),
        "offsets": {k: float(v) for k, v in result.offsets.items()}, "data": case.description, "windows": case.windows,
        "valid_observations": len(result.problem.observations), "cost": result.fit.cost,
        "seconds": round(result.seconds, 2), "at_bounds": result.at_bounds, "seed": result.config.seed,
        "without_noise": case.without_noise(result),
        # of made-up observations the days say nothing: another run's have the same dates
        "fitted_days": day_spans(result.problem.observations.date) if case.truth is None else [],
        "errors": {target: {key: float(value) for key, value in share.items()}
                   for target, share in judgement.shares.items()},
        "coverage": {item.target: item.coverage for item in judgement.fluxes},
    }  # fmt: skip


def write_posterior(directory: Path, judgement: Judgement) -> None:
    """posterior_summary.csv, posterior.npz and posterior.nc (ArviZ) with draws of the main flux."""
    main, posterior = judgement.main, judgement.result.posterior
    target, draws = main.target, judgement.draws[main.target]
    noise_sd = judgement.shares.get(target, {}).get("observation_sd")
    write_csv(directory / "posterior_summary.csv", posterior_table(judgement.result))
    names = [judgement.result.names[i] for i in posterior.free]
    correlation = pd.DataFrame(posterior.correlation, columns=names, index=pd.Index(names, name="param_name"))
    write_csv(directory / "posterior_correlation.csv", correlation, index=True)
    directions = {"direction": 1 + np.arange(len(posterior.eigenvalues)), "information": posterior.eigenvalues}
    write_csv(directory / "posterior_directions.csv", pd.DataFrame(directions))
    extra = {"dates": main.dates.astype(str), f"{target}_samples": draws.astype(np.float32)}
    save_posterior(directory / "posterior.npz", posterior, **extra)
    predictive = {f"true_{target}": draws}
    if noise_sd is not None:
        predictive[target] = with_observation_error(draws, noise_sd, judgement.result.config.seed)
    observed = {target: np.where(main.valid, main.observed, np.nan)}
    save_arviz(directory / "posterior.nc", posterior, predictive, main.dates, observed)


def save_figures(
    judgement: Judgement, directory: Path, space: ParameterSpace, simulator: np.ndarray | None = None
) -> None:
    """The figures of a judgement; see write_outputs."""
    result, conflict, sentence = judgement.result, judgement.conflict, judgement.verdict
    for item in judgement.fluxes:
        figure = nep_comparison(item, sentence, simulator if item is judgement.main else None, baselines_of(item))
        save_figure(figure, directory / f"{item.target}_comparison")
        figure = residuals_by_month(monthly_residuals(item), target_label(item.target), item.estimate)
        save_figure(figure, directory / f"{item.target}_residuals_by_month")
    if result is None:
        unit = space.physical_to_unit(np.stack([judgement.prior, judgement.optimized]))
        xlabel = "position in the trained range (0-1)"
        written = judgement.case.written(judgement.names)
        called = judgement.main.estimate
        figure = parameter_changes(written, unit[0], unit[1], None, None, [], xlabel, sentence, estimate=called)
        save_figure(figure, directory / "parameter_changes")
        return
    ylabel = "cost (minus log posterior + constant)" if result.problem.is_likelihood else "cost"
    figure = loss_history(result.fit.history, ylabel, f"{result.config.method}: {endings(result)}")
    save_figure(figure, directory / "loss_history")
    save_parameter_figure(result, judgement, directory / "parameter_changes")
    if conflict is not None:
        label = target_label(result.config.targets[0])
        save_figure(conflict_figure(conflict.table, conflict.sentence(), label), directory / "prior_conflict")
    if result.posterior is not None:
        posterior = result.posterior
        names = judgement.case.written([result.names[i] for i in posterior.free])
        figure = identifiability_figure(names, posterior.sd_ratio, posterior.correlation, posterior.eigenvalues)
        save_figure(figure, directory / "identifiability")


def monthly_residuals(item: Judged) -> pd.DataFrame:
    """The numbers behind <flux>_residuals_by_month; see figures.residual_months()."""
    valid = item.valid
    residual, name = item.optimized - item.observed, JUDGED if item.given else "fitted"
    return residual_months(item.dates[valid], residual[valid], item.fitted[valid], name)


def baselines_of(item: Judged) -> dict[str, np.ndarray]:
    """The null baselines on every day (day,), Mg C ha-1 day-1, from the fitted days; none where nothing was fitted."""
    fitted = item.valid & item.fitted
    if not fitted.any():
        return {}
    values = item.observed[fitted]
    return {
        "constant": constant_baseline(values, item.dates),
        "climatology": climatology_baseline(item.dates[fitted], values, item.dates),
    }


def save_parameter_figure(result: InversionResult, judgement: Judgement, path: Path) -> None:
    """parameter_changes: positions inside the bounds, or in scaled units without bounds."""
    latent = result.problem.latent
    truth, written = judgement.case.truth, judgement.case.written

    def position(physical: np.ndarray) -> np.ndarray:
        """Physical (..., parameter) -> (..., free parameter): place inside the bounds, or scaled units."""
        if latent.space is not None:
            return latent.unit(physical)
        return (physical[..., latent.free] - result.prior[latent.free]) / latent.scale[latent.free]

    low = high = None
    if result.posterior is not None:
        low, high = np.quantile(position(result.posterior.physical), [0.05, 0.95], axis=0, method="weibull")
    xlabel = (
        "position in its range (0-1)" if latent.space is not None else "distance from the prior (sd of the ensemble)"
    )
    known = None if truth is None else position(truth)
    ratio = None if result.posterior is None else result.posterior.sd_ratio
    figure = parameter_changes(
        written(latent.free_names), position(result.prior), position(result.optimized), low, high,
        written(judgement.informed or []), xlabel, judgement.verdict, known, ratio, latent.space is not None,
    )  # fmt: skip
    save_figure(figure, path)


def write_history(result: InversionResult, path: Path) -> None:
    """loss_history.csv: iteration, best cost, cost of every start."""
    rows = [
        {"iteration": e["iteration"], "best": e["cost"], **{f"start_{k}": c for k, c in enumerate(e["costs"])}}
        for e in result.fit.history
    ]
    write_csv(path, pd.DataFrame(rows))
