"""One recovery case: an ensemble run's parameters against their estimate, as tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, read_json, read_table, warn, write_csv, write_json
from calibration.common.figure_style import save_figure
from calibration.common.parameters import ParameterSpace, catalogue, make_space, read_ranges
from calibration.common.units import TARGETS
from calibration.inversion.data import Stretch
from calibration.inversion.inputs import WITHOUT_NOISE
from calibration.inversion.posterior import predict_days
from calibration.judgement.recovery_figures import overview, parameter_bars, parameter_traces
from inverse_estimator import InversionResult

DEFAULT_TRACES = ("tree_pmax", "tree_lue", "tree_sla", "tree_lf0", "tree_rmf0", "soil_sr_lf")
ESTIMATE_COLUMNS = ("estimated", "optimized")
FEW_OUTSIDE = 0.05  # share of the values that may lie outside ranges that belong to them
MARGIN = 0.02  # of a range: rounding is not outside


@dataclass(frozen=True)
class RecoveryCase:
    """A window of a run whose parameters are known, and its inversion."""

    sample_id: int
    window_index: int
    prior_mode: str  # true, mean, sample
    stretch: Stretch
    truth: np.ndarray  # (parameter,)
    result: InversionResult
    table: pd.DataFrame  # of recovery_table
    trained_on: bool  # whether the emulator's training saw this run
    shown: Mapping[str, str] = field(default_factory=dict)  # parameters that reports write otherwise (Emulator.shown)

    def written(self, names: Sequence[str]) -> list[str]:
        """Parameter names as tables and figures show them."""
        return [self.shown.get(name, name) for name in names]

    @property
    def title(self) -> str:
        """One line for figures."""
        dates = self.stretch.dates
        return (
            f"run {self.sample_id} ({'trained on' if self.trained_on else 'never trained on'}), {dates[0]} to "
            f"{dates[-1]}, prior: {self.prior_mode}, {self.result.config.method}"
        )


def recovery_table(result: InversionResult, truth: np.ndarray, space: ParameterSpace) -> pd.DataFrame:
    """True, prior, estimated (physical), their errors, the errors as a share of the range, interval and sd ratio."""
    width = np.where(space.width > 0, space.width, 1.0)
    table = pd.DataFrame({
        "param_name": list(result.names), "true": truth, "prior": result.prior, "estimated": result.optimized,
        "error_prior": result.prior - truth, "error_estimated": result.optimized - truth,
    })  # fmt: skip
    table["range_low"], table["range_high"] = space.lower, space.upper  # for plot_param_scatter.py
    for name in ("prior", "estimated"):
        table[f"range_error_{name}"] = np.abs(table[f"error_{name}"]) / width
    if result.posterior is not None:
        table["low_90"], table["high_90"] = result.posterior.interval(0.9)
        table["inside_90"] = (truth >= table["low_90"]) & (truth <= table["high_90"])
        ratio = np.full(len(truth), np.nan)
        ratio[result.posterior.free] = result.posterior.sd_ratio
        table["sd_ratio"] = ratio
    return table


def case_nep(case: RecoveryCase) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NEP of truth, prior and estimate, (day,) each, Mg C ha-1 day-1; the truth is what was observed."""
    problem = case.result.problem
    prior, estimated = predict_days(problem, np.stack([problem.prior, case.result.fit.u]), "nep")
    return case.stretch.observed[:, TARGETS.index("nep")], prior, estimated


def case_summary(case: RecoveryCase) -> dict[str, Any]:
    """The numbers of summary.json; errors are means over the free parameters, as shares of their ranges."""
    result, table, stretch = case.result, case.table, case.stretch
    true, prior, estimated = case_nep(case)
    free = table.iloc[list(result.problem.latent.free)]
    # a window of a run as it is
    narrow = result.posterior is not None and result.config.error_model.observation_sd is None
    notes = [*result.notes, WITHOUT_NOISE] if narrow else result.notes
    supposed = None
    if result.problem.is_likelihood:
        supposed = float(result.error_model.shares()[result.config.targets[0]]["observation_sd"])
    return {
        "noise": 0.0, "supposed_noise": supposed,  # Mg C ha-1 day-1, sd: what is observed is the run's own flux
        "sample_id": case.sample_id, "window_index": case.window_index, "prior_mode": case.prior_mode,
        "window_start": str(stretch.dates[0]), "days": stretch.days, "method": result.config.method,
        "sample_was_trained_on": case.trained_on,
        "nep_rmse_prior": float(np.sqrt(np.mean((prior - true) ** 2))),
        "nep_rmse_estimated": float(np.sqrt(np.mean((estimated - true) ** 2))),
        "range_error_prior": float(free["range_error_prior"].mean()),
        "range_error_estimated": float(free["range_error_estimated"].mean()),
        "better_than_prior": int((free["range_error_estimated"] < free["range_error_prior"]).sum()),
        "free_parameters": len(free), "coverage_90": float(free["inside_90"].mean()) if "inside_90" in free else None,
        "at_bounds": result.at_bounds, "cost": result.fit.cost, "seconds": result.seconds, "notes": notes,
    }  # fmt: skip


def write_case(
    case: RecoveryCase, directory: Path, settings: dict[str, Any], traced: list[str], stride: int, plots: bool
) -> tuple[dict[str, Any], str]:
    """params.csv, summary.json (with `settings`) and the figures of a case; returns the summary and the files' prefix,
    sample000_win0000_mean_<time>_. traced: parameters drawn along the iterations, every `stride`-th.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    prefix = f"sample{case.sample_id:03d}_win{case.window_index:04d}_{case.prior_mode}_{stamp}_"
    summary = case_summary(case) | settings
    table = case.table.assign(label=case.written(case.table["param_name"])) if case.shown else case.table
    write_csv(directory / f"{prefix}params.csv", table)
    write_json(directory / f"{prefix}summary.json", summary)
    true, prior, estimated = case_nep(case)
    nep = {"date": case.stretch.dates.astype(str), "true": true, "prior": prior, "estimated": estimated}
    write_csv(directory / f"{prefix}nep.csv", pd.DataFrame(nep))
    if plots:
        errors = (case.table[f"range_error_{name}"].to_numpy() for name in ("prior", "estimated"))
        names = case.written(case.result.names)
        figure = overview(case.stretch.dates, true, prior, estimated, names, *errors, case.title)
        save_figure(figure, directory / f"{prefix}overview")
        write_bars(case, directory / f"{prefix}param_bars")
        write_traces(case, traced, stride, directory / f"{prefix}param_traces")
    return summary, prefix


def write_bars(case: RecoveryCase, path: Path) -> None:
    """param_bars: positions inside the bounds of the free parameters."""
    result, latent = case.result, case.result.problem.latent
    if latent.space is None:
        low, width = result.prior[latent.free] - 2 * latent.scale[latent.free], 4 * latent.scale[latent.free]

        def position(physical):
            """Physical (..., parameter) -> (..., free parameter), 0 to 1 over two prior sds either side."""
            return (physical[..., latent.free] - low) / width
    else:
        position = latent.unit
    interval = (None, None)
    if result.posterior is not None:
        interval = np.quantile(position(result.posterior.physical), [0.05, 0.95], axis=0)
    values = (position(vector) for vector in (case.truth, result.prior, result.optimized))
    save_figure(parameter_bars(case.written(latent.free_names), *values, *interval, case.title), path)


def write_traces(case: RecoveryCase, traced: list[str], stride: int, path: Path) -> None:
    """param_traces, figure and CSV: the best point so far along the iterations."""
    result = case.result
    names = traced or [n for n in DEFAULT_TRACES if n in result.names] or list(result.names[:6])
    index = [result.names.index(name) for name in names]
    free = len(result.problem.latent.free)
    traces = result.problem.latent.physical_array(np.stack(result.fit.trace)[:, :free])[:, index]
    steps = np.arange(len(traces))
    keep = (steps % stride == 0) | (steps == steps[-1])
    units = [catalogue()[name].unit if name in catalogue() else "" for name in names]
    figure = parameter_traces(case.written(names), steps[keep], traces[keep], case.truth[index], units)
    save_figure(figure, path)
    write_csv(
        path.with_name(f"{path.name}.csv"), pd.DataFrame(traces[keep], columns=names).assign(iteration=steps[keep])
    )


# --- the table read back ---------------------------------------------------------------------------------------------


def read_recovery(path: Path, with_prior: bool) -> pd.DataFrame:
    """Columns param_name, true, estimated (and prior). UserError names a missing column or a wrong value."""
    table = read_table(path, "make it with evaluate_parameter_recovery.py")
    found = next((name for name in ESTIMATE_COLUMNS if name in table), None)
    if found:
        table = table.rename(columns={found: "estimated"})
    needed = ["param_name", "true", "estimated", *(["prior"] if with_prior else [])]
    for name in needed:
        if name not in table:
            raise UserError(
                f"{path}: has no column '{name}' (found {', '.join(table.columns)}); give a *_params.csv of "
                "evaluate_parameter_recovery.py"
            )
    for name in needed[1:]:
        values = pd.to_numeric(table[name], errors="coerce")
        if values.isna().any():
            line = int(np.flatnonzero(values.isna())[0])
            raise UserError(f"{path}, line {line + 2}: {name} is {str(table[name][line])!r}, expected a number")
        table[name] = values
    if table.empty:
        raise UserError(f"{path}: holds no parameter; make it again with evaluate_parameter_recovery.py")
    return table


def choose_ranges(table: pd.DataFrame, path: Path, given: str | None, artifacts: Path) -> tuple[ParameterSpace, str]:
    """The ranges for the axes and where they come from: the file given, else the ensemble's own.

    The ensemble's own stand in the CSV (range_low, range_high) or in the emulator's config.json. Where more than a few
    values lie outside a file's ranges the ensemble's own are used instead, with a warning; UserError without them.
    """
    candidates = [(read_ranges(given), given)] if given else []
    if {"range_low", "range_high"} <= set(table):
        rows = zip(table["param_name"], table["range_low"], table["range_high"], strict=True)
        candidates.append((make_space([(name, float(low), float(high)) for name, low, high in rows], path), str(path)))
    config = artifacts / "config.json"
    if config.is_file() and (len(candidates) < (2 if given else 1)):
        entries = read_json(config).get("parameter_space") or []
        known = make_space([tuple(entry) for entry in entries], config) if entries else None
        if known is not None and set(table["param_name"]) <= set(known.names):
            candidates.append((known, str(config)))
    refused = []
    for space, source in candidates:
        missing = [name for name in table["param_name"] if name not in space.names]
        outside = [] if missing else values_outside(space, table)
        if missing and len(candidates) > len(refused) + 1:
            refused.append(f"{source} has no range for {missing[0]}")
        elif missing or len(outside) <= max(2, FEW_OUTSIDE * 2 * len(table)):
            if refused:
                warn(f"{refused[0]}: the ranges of the ensemble are used instead ({source})")
            return space, source
        else:
            refused.append(
                f"{source}: {len(outside)} of {2 * len(table)} values lie outside these ranges (such as {outside[0]}), "
                "so they are not those of the ensemble"
            )
    if refused:
        raise UserError(
            f"{refused[0]}; give the ensemble's own ranges with --range-csv, or its emulator with --artifacts-dir"
        )
    raise UserError(
        f"{path}: holds no ranges, and {config} is no emulator of these parameters; give the ensemble's ranges with "
        "--range-csv"
    )


def values_outside(space: ParameterSpace, table: pd.DataFrame) -> list[str]:
    """The true and estimated values that lie outside the ranges, in words."""
    found = []
    for column in ("true", "estimated"):
        place = normalised(space, table["param_name"].tolist(), table[column], "")
        for row in np.flatnonzero((place < -MARGIN) | (place > 1 + MARGIN)):
            name, value = table["param_name"].iloc[row], table[column].iloc[row]
            at = space.names.index(name)
            found.append(f"{column} {name} {value:g}, range {space.lower[at]:g} to {space.upper[at]:g}")
    return found


def normalised(space: ParameterSpace, names: list[str], values: pd.Series, source: str) -> np.ndarray:
    """Position of values (parameter,) in the full range of each parameter (a tied one: the widest), 0-1."""
    missing = [name for name in names if name not in space.names]
    if missing:
        raise UserError(
            f"{source}: has no range for {', '.join(missing)}; give the ranges of the ensemble (--range-csv)"
        )
    index = [space.names.index(name) for name in names]
    width = np.where(space.width[index] > 0, space.width[index], 1.0)
    return (values.to_numpy(dtype=float) - space.lower[index]) / width
