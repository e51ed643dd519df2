"""How well does the inversion recover parameters that are known?

  one case   observations are one window of an ensemble run (default)
  a study    --cases N: truths are the simulator's output for parameter vectors the emulator has never seen, with noise
             and gaps; per-case and per-parameter tables, coverage, rank histograms (recovery_study.json)

Examples
  python evaluate_parameter_recovery.py --sample-id 0 --window-index 0 --trace-params tree_pmax tree_lue
  python evaluate_parameter_recovery.py --cases 100 --span 365 --noise 0.005 --gaps 0.2 --targets nep
"""

import argparse
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import REPOSITORY, UserError, make_parser, output_folder, run, write_json, writing
from calibration.common.parameters import ParameterSpace, catalogue
from calibration.common.units import TARGETS
from calibration.emulator.trained import Emulator, load_emulator
from calibration.inversion.config import DEFAULT_CONFIG, METHODS, load_inversion_config, override
from calibration.inversion.inputs import load_matching_ensemble, prior_parameters, simulation_window
from calibration.inversion.posterior import predict_days
from calibration.judgement.recovery_figures import overview, parameter_bars, parameter_traces
from calibration.judgement.refine import check_runs
from calibration.judgement.report import write_csv
from inverse_estimator import InversionResult, StaticParameterInverter

DEFAULT_TRACES = ("tree_pmax", "tree_lue", "tree_sla", "tree_lf0", "tree_rmf0", "soil_sr_lf")


def main() -> int:
    arguments = parse_arguments()
    output_folder(arguments.result_dir, "--result-dir")
    emulator = load_emulator(arguments.artifacts_dir, arguments.device)
    arguments.data_dir = arguments.data_dir or str(emulator.data_directory)
    config = override(
        load_inversion_config(arguments.config), method=arguments.method, target_variable=arguments.targets,
        starts=arguments.starts, seed=arguments.seed,
    )  # fmt: skip
    inverter = StaticParameterInverter.from_emulator(emulator, config, arguments.config)
    if arguments.cases:
        from calibration.judgement.recovery_study import run_study

        return run_study(arguments, emulator, inverter)

    traced = [emulator.parameter_names[i] for i in emulator.parameter_index(arguments.trace_params or [])]
    ensemble = load_matching_ensemble(emulator, arguments.data_dir)
    stretch, truth = simulation_window(emulator, ensemble, arguments.sample_id, arguments.window_index)
    prior = choose_prior(arguments, emulator, truth)
    result = inverter.invert_stretches(prior, [stretch], arguments.unconstrained)
    table = recovery_table(result, truth, inverter.space)
    write_case(arguments, emulator, result, stretch, truth, table, traced)
    return 0


def choose_prior(arguments: argparse.Namespace, emulator: Emulator, truth: np.ndarray) -> np.ndarray:
    """The prior vector (parameter,) of --prior-mode, physical."""
    if arguments.prior_mode == "true":
        return truth.copy()
    sample = arguments.prior_sample_id if arguments.prior_mode == "sample" else None
    return prior_parameters(emulator, arguments.data_dir, sample)[0]


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


def write_case(
    arguments: argparse.Namespace,
    emulator: Emulator,
    result: InversionResult,
    stretch,
    truth: np.ndarray,
    table: pd.DataFrame,
    traced: list[str],
) -> None:
    """params.csv, summary.json and the figures of one case, all with the prefix sample000_win0000_mean_<time>_."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    prefix = f"sample{arguments.sample_id:03d}_win{arguments.window_index:04d}_{arguments.prior_mode}_{stamp}_"
    directory = Path(arguments.result_dir)
    nep = TARGETS.index("nep")
    prior_nep, estimated_nep = predict_days(result.problem, np.stack([result.problem.prior, result.fit.u]), "nep")
    observed = stretch.observed[:, nep]
    seen = arguments.sample_id in (emulator.config.get("data") or {}).get("seen_sample_ids", [])
    free = list(result.problem.latent.free)
    summary = {
        "sample_id": arguments.sample_id, "window_index": arguments.window_index, "prior_mode": arguments.prior_mode,
        "window_start": str(stretch.dates[0]), "days": stretch.days, "method": result.config.method,
        "sample_was_trained_on": seen,
        "nep_rmse_prior": float(np.sqrt(np.mean((prior_nep - observed) ** 2))),
        "nep_rmse_estimated": float(np.sqrt(np.mean((estimated_nep - observed) ** 2))),
        "range_error_prior": float(table["range_error_prior"].iloc[free].mean()),
        "range_error_estimated": float(table["range_error_estimated"].iloc[free].mean()),
        "better_than_prior": int((table["range_error_estimated"] < table["range_error_prior"]).iloc[free].sum()),
        "free_parameters": len(free),
        "coverage_90": float(table["inside_90"].iloc[free].mean()) if "inside_90" in table else None,
        "at_bounds": result.at_bounds, "cost": result.fit.cost, "seconds": result.seconds, "notes": result.notes,
        "config": str(arguments.config), "unconstrained": bool(arguments.unconstrained),
    }  # fmt: skip
    write_csv(directory / f"{prefix}params.csv", table)
    write_json(directory / f"{prefix}summary.json", summary)
    print(
        f"mean error / range: prior {summary['range_error_prior']:.3f}, "
        f"estimated {summary['range_error_estimated']:.3f} "
        f"({summary['better_than_prior']} of {len(free)} parameters better than the prior)"
    )
    if not arguments.no_plots:
        title = (
            f"run {arguments.sample_id} ({'trained on' if seen else 'never trained on'}), {stretch.dates[0]} to "
            f"{stretch.dates[-1]}, prior: {arguments.prior_mode}, {result.config.method}"
        )
        save(
            overview(stretch.dates, observed, observed, prior_nep, estimated_nep, result.names,
                     table["range_error_prior"].to_numpy(), table["range_error_estimated"].to_numpy(), title),
            directory / f"{prefix}overview.png",
        )  # fmt: skip
        write_bars(result, truth, title, directory / f"{prefix}param_bars.png")
        write_traces(arguments, result, truth, traced, directory / f"{prefix}param_traces.png")
    print(f"results in {directory}/{prefix}*")


def write_bars(result: InversionResult, truth: np.ndarray, title: str, path: Path) -> None:
    """param_bars.png: positions inside the bounds of the free parameters."""
    latent = result.problem.latent
    space = latent.space
    if space is None:
        low, width = result.prior[latent.free] - 2 * latent.scale[latent.free], 4 * latent.scale[latent.free]

        def position(physical):
            """Physical (..., parameter) -> (..., free parameter), 0 to 1 over two prior sds either side."""
            return (physical[..., latent.free] - low) / width
    else:
        position = latent.unit
    interval = (None, None)
    if result.posterior is not None:
        interval = np.quantile(position(result.posterior.physical), [0.05, 0.95], axis=0)
    figure = parameter_bars(
        latent.free_names, position(truth), position(result.prior), position(result.optimized), *interval, title
    )
    save(figure, path)


def write_traces(
    arguments: argparse.Namespace, result: InversionResult, truth: np.ndarray, traced: list[str], path: Path
) -> None:
    """param_traces.png and .csv: the best point so far along the iterations, every --trace-stride-th."""
    names = traced or [n for n in DEFAULT_TRACES if n in result.names] or list(result.names[:6])
    index = [result.names.index(name) for name in names]
    free = len(result.problem.latent.free)
    traces = result.problem.latent.physical_array(np.stack(result.trace)[:, :free])[:, index]
    steps = np.arange(len(traces))
    keep = (steps % arguments.trace_stride == 0) | (steps == steps[-1])
    units = [catalogue()[name].unit if name in catalogue() else "" for name in names]
    save(parameter_traces(names, steps[keep], traces[keep], truth[index], units), path)
    write_csv(path.with_suffix(".csv"), pd.DataFrame(traces[keep], columns=names).assign(iteration=steps[keep]))


def save(figure, path: Path) -> None:
    """Save a figure, atomically."""
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def parse_arguments() -> argparse.Namespace:
    """The command line, checked as far as possible before anything is read."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--config", default=str(DEFAULT_CONFIG), help="inversion YAML")
    add("--artifacts-dir", default=str(REPOSITORY / "artifacts"), help="trained emulator")
    add("--data-dir", help="its ensemble: runs, parameter_summary.csv, weather (default: that of its training)")
    add("--result-dir", default=str(REPOSITORY / "inverse_recovery"), help="folder for tables and figures")
    add("--device", default="cpu", help="cpu, cuda, cuda:1")
    add("--method", choices=METHODS, help="overrides the configuration")
    add("--targets", nargs="+", help="fluxes that are observed: nep gpp er ... (default: configuration)")
    add("--starts", type=int, help="starting points in one batch (default: configuration)")
    add("--seed", type=int, help="seed of starts, samples and of the study's cases (default: configuration)")
    group = parser.add_argument_group("one case")
    group.add_argument("--sample-id", type=int, default=0, help="run of the ensemble that is the truth")
    group.add_argument("--window-index", type=int, default=0, help="window of the test period, 0 = its first day")
    group.add_argument(
        "--prior-mode", choices=("true", "mean", "sample"), default="mean", help="prior: truth, mean, run"
    )
    group.add_argument("--prior-sample-id", type=int, help="the run of --prior-mode sample")
    group.add_argument("--trace-params", nargs="+", metavar="NAME", help="parameters drawn along the iterations")
    group.add_argument("--trace-stride", type=int, default=1, help="draw every n-th iteration")
    group.add_argument("--unconstrained", action="store_true", help="no bounds, no prior term")
    group.add_argument("--no-plots", action="store_true", help="tables only")
    group = parser.add_argument_group("a study")
    group.add_argument("--cases", type=int, default=0, help="number of unseen truths; 0 = one case")
    group.add_argument("--span", type=int, default=365, help="observed days")
    group.add_argument("--noise", type=float, default=0.005, help="sd of white noise, Mg C ha-1 day-1")
    group.add_argument("--gaps", type=float, default=0.0, help="share of days without observation, 0 to below 1")
    group.add_argument(
        "--noise-unknown", action="store_true", help="the inversion estimates the noise (default: knows it)"
    )
    group.add_argument(
        "--refine", type=int, default=0, metavar="N", help="simulator runs a round of refinement (0 = off)"
    )
    group.add_argument("--weather", help="weather of the truths (default: that of --data-dir), VISIT's units")
    group.add_argument("--site", help="site YAML (default: configs/sites/lhp.yaml)")
    group.add_argument("--jobs", type=int, help="processes (default: all cores)")
    group.add_argument("--dask-scheduler", help="tcp://host:8786: cases run there")
    group.add_argument(
        "--overwrite", action="store_true", help="drop the cases of an earlier study with other settings"
    )
    arguments = parser.parse_args()
    if arguments.targets:
        arguments.targets = ",".join(arguments.targets)
    if arguments.prior_mode == "sample" and arguments.prior_sample_id is None:
        raise UserError("--prior-mode sample needs --prior-sample-id")
    if arguments.trace_stride < 1:
        raise UserError(f"--trace-stride is {arguments.trace_stride}; it must be 1 or more")
    if arguments.cases < 0 or arguments.span < 1 or arguments.noise < 0 or not 0 <= arguments.gaps < 1:
        raise UserError("--cases must be 0 or more, --span 1 or more, --noise 0 or more, --gaps from 0 to below 1")
    check_runs(arguments.refine)
    if arguments.refine and not arguments.cases:
        raise UserError("--refine belongs to a study: give --cases too, or use test_inversion.py for one inversion")
    return arguments


if __name__ == "__main__":
    run(main)
