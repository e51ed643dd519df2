"""How well does the inversion recover parameters that are known?

  one case   observations are one window of an ensemble run (default)
  a study    --cases N: truths are the simulator's output for parameter vectors the emulator has never seen, with noise
             and gaps; per-case and per-parameter tables, coverage, rank histograms (recovery_study.json)

Examples
  python evaluate_parameter_recovery.py --sample-id 0 --window-index 0 --trace-params tree_pmax tree_lue
  python evaluate_parameter_recovery.py --cases 100 --span 365 --noise 0.005 --gaps 0.2 --targets nep
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    add_quiet,
    closing,
    make_parser,
    one_thread,
    output_folder,
    run,
)
from calibration.common.figure_style import FORMATS, use_format
from calibration.common.folder_lock import only_process_in
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.emulator.trained import Emulator, load_emulator
from calibration.inversion.config import DEFAULT_CONFIG, METHODS, load_inversion_config, override
from calibration.inversion.inputs import load_matching_ensemble, prior_parameters, simulation_window
from calibration.judgement.recovery_case import RecoveryCase, recovery_table, write_case
from calibration.judgement.recovery_statistics import coverage_sentence
from calibration.judgement.recovery_study import Study, run_study, write_study
from calibration.judgement.refine import check_runs
from calibration.judgement.simulator_check import driving_weather, simulate_vectors, site_of
from inverse_estimator import StaticParameterInverter


def main() -> int:
    arguments = parse_arguments()
    begin = time.perf_counter()
    one_thread()
    use_format(arguments.figure_format)
    output_folder(arguments.result_dir, "--result-dir")
    emulator = load_emulator(arguments.artifacts_dir, arguments.device)
    arguments.data_dir = arguments.data_dir or str(emulator.data_directory)
    config = override(
        load_inversion_config(arguments.config), method=arguments.method, target_variable=arguments.targets,
        starts=arguments.starts, seed=arguments.seed,
    )  # fmt: skip
    inverter = StaticParameterInverter.from_emulator(emulator, config, arguments.config)
    if arguments.cases:
        where, following, found = run_the_study(arguments, emulator, inverter)
    else:
        where, following, found = run_one_case(arguments, emulator, inverter)
    write_record(arguments.result_dir, begin, {
        "emulator": arguments.artifacts_dir, "ensemble": arguments.data_dir, "configuration": arguments.config,
        "weather": arguments.weather,
    }, seed=config.seed)  # fmt: skip
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(arguments.result_dir)}")
    closing(where, following, found)
    return 0


def run_one_case(
    arguments: argparse.Namespace, emulator: Emulator, inverter: StaticParameterInverter
) -> tuple[str, str, str]:
    """One window of an ensemble run, inverted and compared with the run's parameters; what closing() says of it."""
    traced = [emulator.parameter_names[i] for i in emulator.parameter_index(arguments.trace_params or [])]
    ensemble = load_matching_ensemble(emulator, arguments.data_dir)
    stretch, truth = simulation_window(emulator, ensemble, arguments.sample_id, arguments.window_index)
    result = inverter.invert_stretches(choose_prior(arguments, emulator, truth), [stretch], arguments.unconstrained)
    case = RecoveryCase(
        arguments.sample_id, arguments.window_index, arguments.prior_mode, stretch, truth, result,
        recovery_table(result, truth, inverter.space),
        arguments.sample_id in (emulator.config.get("data") or {}).get("seen_sample_ids", []), emulator.shown,
    )  # fmt: skip
    settings = {"config": str(arguments.config), "unconstrained": arguments.unconstrained}
    summary, prefix = write_case(
        case, Path(arguments.result_dir), settings, traced, arguments.trace_stride, not arguments.no_plots
    )
    found = (
        f"mean error / range: prior {summary['range_error_prior']:.3f}, "
        f"estimated {summary['range_error_estimated']:.3f} "
        f"({summary['better_than_prior']} of {summary['free_parameters']} parameters better than the prior)"
    )
    where = f"{arguments.result_dir}/{prefix}"
    return f"{where}*", f"python plot_param_scatter.py {where}params.csv --include-prior", found


def run_the_study(
    arguments: argparse.Namespace, emulator: Emulator, inverter: StaticParameterInverter
) -> tuple[str, str, str]:
    """A study of --cases truths that the simulator makes; what closing() says of it."""
    study = Study(
        arguments.cases, arguments.span, arguments.noise, arguments.gaps, not arguments.noise_unknown, arguments.refine
    )
    site = site_of(arguments.site, arguments.data_dir)
    weather = driving_weather(arguments.weather, arguments.data_dir, site, emulator)
    simulate = partial(simulate_vectors, names=emulator.parameter_names, weather=weather, site=site)
    directory = Path(arguments.result_dir)
    lock = only_process_in(directory, "evaluate_parameter_recovery.py")
    summary, results = run_study(
        study, directory, emulator, inverter, weather, simulate, arguments.overwrite, arguments.jobs,
        arguments.dask_scheduler,
    )  # fmt: skip
    write_study(directory, summary, results, emulator.parameter_names, not arguments.no_plots)
    found = (
        f"{summary['cases']} cases of {summary['span_days']} days, noise {summary['noise']}: coverage of 90 percent "
        f"intervals {100 * summary['coverage_90']:.1f} percent, "
        f"annual NEP {100 * summary['annual_nep_coverage_90']:.1f}; "
        f"error / range {summary['range_error_estimated']:.3f} (prior {summary['range_error_prior']:.3f}); "
        f"{summary['informed_parameters']} parameters informed; {summary['seconds_per_case']:.1f} s a case"
    )
    if lock is not None:
        lock.release()
    said = "\n".join([found, coverage_sentence(summary), *summary["notes"]])
    return str(directory), f"python make_report.py {directory}", said


def choose_prior(arguments: argparse.Namespace, emulator: Emulator, truth: np.ndarray) -> np.ndarray:
    """The prior vector (parameter,) of --prior-mode, physical."""
    if arguments.prior_mode == "true":
        return truth.copy()
    sample = arguments.prior_sample_id if arguments.prior_mode == "sample" else None
    return prior_parameters(emulator, arguments.data_dir, sample)[0]


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
    add_quiet(group)
    group.add_argument("--no-plots", action="store_true", help="tables only")
    group.add_argument("--figure-format", choices=FORMATS, default="png", help="pdf or svg for a paper")
    group.add_argument("--report", action="store_true", help="also write report.html: all on one page (make_report.py)")
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
    add_reproduce(parser, "--result-dir")
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
