"""test_inversion.py --each-window: every window of a range inverted on its own; do the parameters change in time?"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from calibration.common.command_line import UserError, notice, progress, write_csv, write_text
from calibration.common.figure_style import PAGE, save_figure, styled
from calibration.common.parameters import catalogue
from calibration.common.provenance import write_record
from calibration.common.units import FLUX_UNIT
from calibration.emulator.trained import Emulator
from calibration.inversion.data import Stretch, stretches_from_windows
from calibration.inversion.inputs import choose_windows, prior_parameters
from calibration.inversion.posterior import INFORMED
from calibration.judgement.recovery_study import side_by_side
from calibration.tower.windows import Windows, load_windows
from calibration.workflows.window_changes import change_test, separate_windows
from inverse_estimator import StaticParameterInverter

TABLE, TEST, SUMMARY, FIGURE = "each_window.csv", "each_window_test.csv", "each_window_summary.txt", "each_window"
PANELS = 8


@dataclass(frozen=True)
class WindowEstimate:
    """What one window says; latent values are in prior standard deviations, the others physical."""

    first: np.datetime64
    last: np.datetime64
    valid_days: int
    optimized: np.ndarray  # (parameter,)
    low: np.ndarray  # (parameter,) of the 90 percent interval
    high: np.ndarray
    mean: np.ndarray  # (size,) latent posterior mean
    covariance: np.ndarray  # (size, size) latent; a diagonal of 1 = the window says nothing
    rmse: float  # Mg C ha-1 day-1, of the first target
    constant: float  # the same of the window's own mean


def check_each_window(arguments: argparse.Namespace) -> None:
    """UserError on flags that do not go with --each-window."""
    if not arguments.each_window:
        return
    if arguments.model != "emulator" or arguments.mode != "observation":
        raise UserError("--each-window inverts windows of a window file by the emulator; leave out --model, --mode")
    given = {
        "--obs-index": arguments.obs_index is not None, "--param-load": arguments.param_load,
        "--param-save": arguments.param_save, "--refine": arguments.refine, "--verify": arguments.verify,
        "--diagnose": arguments.diagnose, "--unconstrained": arguments.unconstrained,
        "--holdout-start": arguments.holdout_start, "--report": arguments.report,
    }  # fmt: skip
    wrong = [flag for flag, value in given.items() if value]
    if wrong:
        raise UserError(f"{wrong[0]} belongs to one inversion, --each-window makes many; give one of them")


def each_window(
    arguments: argparse.Namespace, emulator: Emulator, inverter: StaticParameterInverter, results: Path,
) -> str:  # fmt: skip
    """Invert every window of the range, write tables, figure and summary into `results`; returns the verdict."""
    begin = time.perf_counter()
    if (posterior := inverter.config.posterior) != "draws":
        raise UserError(f"--each-window takes draws: the others take too long; leave out posterior {posterior}")
    prior, _ = prior_parameters(emulator, arguments.data_dir, arguments.obs_prior_sample)
    if inverter.config.lambda_prior is not None:
        raise UserError(f"{arguments.config}: --each-window compares posteriors; it needs lambda_prior: null")
    windows = load_windows(
        Path(arguments.obs_npz), emulator.feature_names, emulator.dynamic_scaler, rescale=arguments.rescale
    )
    chosen = choose_windows(
        windows, Path(arguments.obs_npz), None, arguments.obs_range_start or windows.window_start.min().item(),
        arguments.obs_range_end, arguments.obs_range_step, arguments.max_obs_windows,
    )  # fmt: skip
    tasks = [one_window(windows, i) for i in chosen]
    tasks = [stretches for stretches in tasks if any(stretch.mask.any() for stretch in stretches)]
    if not tasks:
        raise UserError(f"{arguments.obs_npz}: no valid observation in the chosen windows; choose other dates")
    if len(tasks) < len(chosen):
        notice(f"{len(chosen) - len(tasks)} of {len(chosen)} windows hold no valid observation and are left out")
    problem = inverter.problem(prior, tasks[0], False, arguments.free, arguments.fix or ())
    free = problem.latent.free
    names = [inverter.names[i] for i in free]
    invert = partial(estimate, inverter, prior, arguments.free, arguments.fix or ())
    made = side_by_side(min(joblib.cpu_count(), len(tasks)), invert, tasks)
    with progress(made, total=len(tasks), desc="windows", unit="window") as bar:
        found = sorted(bar, key=lambda one: one.first)
    first, last = (np.array([getattr(one, day) for one in found]) for day in ("first", "last"))
    apart = [found[k] for k in separate_windows(first, last)]
    test = tested(apart, names, problem.prior)
    write_csv(results / TABLE, window_table(inverter.names, prior, free, found))
    write_csv(results / TEST, test)
    test = test.assign(param_name=[emulator.shown.get(name, name) for name in names])
    verdict = change_verdict(test, len(found), len(apart)) + unfitted(found)
    write_text(results / SUMMARY, summary(verdict, arguments, found, test))
    if not arguments.no_plots:
        best = np.argsort(smallest_sd(found)[: len(free)])[:PANELS]
        columns = free[np.sort(best)]
        save_figure(
            window_figure(
                [labelled(emulator, inverter.names[i]) for i in columns], first, last,
                *(np.stack([getattr(one, what)[columns] for one in found]) for what in ("optimized", "low", "high")),
                prior[columns],
            ),
            results / FIGURE,
        )  # fmt: skip
    write_record(results, begin, {
        "emulator": arguments.artifacts_dir, "ensemble": arguments.data_dir, "configuration": arguments.config,
        "observations": arguments.obs_npz,
    }, seed=inverter.config.seed)  # fmt: skip
    return verdict


def one_window(windows: Windows, index: int) -> list[Stretch]:
    """The window as stretches."""
    return stretches_from_windows(windows.select(np.array([index])))


def estimate(
    inverter: StaticParameterInverter, prior: np.ndarray, free: Sequence[str] | None, fix: Sequence[str],
    stretches: list[Stretch],
) -> WindowEstimate:  # fmt: skip
    """Invert one window."""
    result = inverter.invert_stretches(prior, stretches, False, free, fix)
    problem, target = result.problem, result.problem.observations.targets[0]
    here = problem.observations.of(target)
    observed, fitted = problem.observations.value[here], result.fit.predicted[here]
    dates = np.concatenate([s.dates for s in stretches])
    low, high = result.posterior.interval()
    latent = result.posterior.latent
    return WindowEstimate(
        dates.min(), dates.max(), len(here), result.optimized, low, high, latent.mean(axis=0),
        np.atleast_2d(np.cov(latent, rowvar=False)),
        float(np.sqrt(np.mean((fitted - observed) ** 2))), float(observed.std()),
    )  # fmt: skip


def tested(found: Sequence[WindowEstimate], names: Sequence[str], prior: np.ndarray) -> pd.DataFrame:
    """change_test() of windows that share no day, one row a free parameter; prior (size,) latent."""
    mean, covariance = (np.stack([getattr(one, what) for one in found]) for what in ("mean", "covariance"))
    changes = change_test(mean, covariance, prior, np.ones(len(names), dtype=bool))
    return pd.DataFrame({
        "param_name": names, "windows": changes.windows, "smallest_sd_ratio": smallest_sd(found)[: len(names)],
        "q": changes.statistic, "p": changes.p, "p_holm": changes.p_holm, "changes": changes.found,
    })  # fmt: skip


def smallest_sd(found: Sequence[WindowEstimate]) -> np.ndarray:
    """(size,) smallest posterior sd of any window, in prior sds."""
    return np.sqrt(np.min([np.diag(one.covariance) for one in found], axis=0))


def change_verdict(test: pd.DataFrame, windows: int, apart: int) -> str:
    """One sentence: which parameters change along time."""
    compared = test["p"].notna()
    if not compared.any():
        why = "one window" if apart < 2 else "no two windows without a common day inform the same parameter"
        return f"NOT TESTED: {why} ({windows} inverted, {apart} without overlap)"
    changing = test[test["changes"]].sort_values("p_holm")
    if changing.empty:
        return (
            f"NO CHANGE SHOWN: over {apart} windows without overlap none of {compared.sum()} parameters that could be "
            "compared changes more than its intervals allow; one set of parameters may serve all of them"
        )
    said = ", ".join(
        f"{name} (probability {p:.2g} if it did not)"
        for name, p in zip(changing["param_name"], changing["p_holm"], strict=True)
    )
    return (
        f"CHANGES ALONG TIME: {said}; of {compared.sum()} parameters compared over {apart} windows without overlap. "
        "One set of parameters does not serve all windows: the model lacks what changes there, or the data err"
    )


def unfitted(found: Sequence[WindowEstimate]) -> str:
    """What the verdict adds where windows are fitted no better than by their own mean ('' if none is)."""
    worse = sum(one.rmse >= one.constant for one in found)
    if not worse:
        return ""
    return f". In {worse} of {len(found)} windows a constant fits as well: do not read the parameters of those"


def window_table(
    names: Sequence[str], prior: np.ndarray, free: np.ndarray, found: Sequence[WindowEstimate]
) -> pd.DataFrame:
    """One row a window and free parameter; physical units of configs/visit_parameters.csv, rmse Mg C ha-1 day-1."""
    rows = [
        {"window": k, "first_day": str(one.first), "last_day": str(one.last), "valid_days": one.valid_days,
         "param_name": names[i], "optimized": one.optimized[i], "low_90": one.low[i], "high_90": one.high[i],
         "prior": prior[i], "sd_ratio": np.sqrt(one.covariance[j, j]), "rmse": one.rmse, "rmse_constant": one.constant}
        for k, one in enumerate(found) for j, i in enumerate(free)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def summary(
    verdict: str, arguments: argparse.Namespace, found: Sequence[WindowEstimate], test: pd.DataFrame
) -> str:
    """The text of each_window_summary.txt."""
    rmse, constant = (np.median([getattr(one, name) for one in found]) for name in ("rmse", "constant"))
    informed = [name for name, ratio in zip(test["param_name"], test["smallest_sd_ratio"], strict=True)
                if ratio < INFORMED]  # fmt: skip
    silent = test.loc[test["windows"] == 0, "param_name"]
    return "\n".join([
        verdict,
        f"data: {arguments.obs_npz}, {len(found)} windows, {found[0].first} to {found[-1].last}",
        f"fit: median RMSE {rmse:.4f} {FLUX_UNIT}, of each window's own mean {constant:.4f}",
        f"informed by at least one window (posterior sd below {INFORMED} of the prior's): "
        f"{', '.join(informed) or 'none'}",
        f"no window without overlap says anything of: {', '.join(silent) or 'none'}",
        f"test: Cochran's Q of what the data of each window say without the prior, Holm's correction; {TEST}",
        "",
    ])  # fmt: skip


def labelled(emulator: Emulator, name: str) -> str:
    """A parameter with its unit, as an axis is labelled."""
    unit = catalogue()[name].unit if name in catalogue() else ""
    shown = emulator.shown.get(name, name)
    return f"{shown} ({unit})" if unit and unit != "-" else shown


@styled
def window_figure(
    labels: Sequence[str], first: np.ndarray, last: np.ndarray, optimized: np.ndarray, low: np.ndarray,
    high: np.ndarray, prior: np.ndarray,
) -> Figure:  # fmt: skip
    """Estimates with 90 percent intervals along time, a panel a parameter.

    first, last: (window,) days; optimized, low, high: (window, parameter) and prior (parameter,) in physical units.
    """
    columns = 2 if len(labels) > 1 else 1
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(PAGE, 0.6 + 1.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    middle = first + (last - first) // 2
    for k, axes in enumerate(panels.flat):
        if k >= len(labels):
            axes.set_axis_off()
            continue
        error = np.abs(np.stack([optimized[:, k] - low[:, k], high[:, k] - optimized[:, k]]))
        axes.errorbar(middle, optimized[:, k], error, fmt="o", ms=3, lw=0.8, label="estimate, 90 percent interval")
        axes.axhline(prior[k], color="0.5", lw=0.8, ls="--", label="prior mean")
        axes.set_title(labels[k])
        locator = AutoDateLocator(minticks=3, maxticks=6)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
