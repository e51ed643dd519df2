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
from pathlib import Path

import numpy as np

from calibration.common.command_line import (
    REPOSITORY,
    UserError,
    add_quiet,
    closing,
    from_repository,
    iso_date,
    make_parser,
    one_thread,
    output_folder,
    run,
    warn,
    write_csv,
)
from calibration.common.figure_style import FORMATS, use_format
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.conflict.looks import Conflicting, Surroundings, looks_lines, looks_table, take_looks
from calibration.conflict.misfit import misfit_sentence
from calibration.conflict.reach import Reach, best_inside_bounds
from calibration.emulator.trained import Emulator, load_emulator
from calibration.inversion.config import (
    DEFAULT_CONFIG,
    METHODS,
    POSTERIORS,
    load_inversion_config,
    override,
    target_label,
)
from calibration.inversion.inputs import prior_parameters
from calibration.judgement.fit import CONFLICTING, Conflict
from calibration.judgement.judge import Case, Judgement, judge_inversion, judge_parameters
from calibration.judgement.outputs import inversion_metadata, write_outputs
from calibration.judgement.prior_check import conflict_before_fit
from calibration.judgement.refine import check_runs, refine_inversion
from calibration.judgement.report import distance_sentence
from calibration.judgement.simulator_check import driving_weather, export_parameters, site_of, verify_estimate
from calibration.judgement.tables import load_snapshot
from calibration.weather.daily import read_weather
from calibration.workflows.case import label_facts, load_case
from calibration.workflows.each_window import check_each_window, each_window
from calibration.workflows.named_model import process_model
from calibration.workflows.process_command import (
    MODELS,
    check_arguments,
    compare_with_emulator,
    observed_case,
    process_inversion,
    process_subject,
)
from calibration.workflows.process_setup import ProcessSetup
from calibration.workflows.users_visit import add_command_arguments, baseline_file
from inverse_estimator import StaticParameterInverter

BEST = "best that any parameters inside the bounds reach"  # lines of the summary
CONFLICT, CHANGE = "what conflicts", "what would change it"


def main() -> int:
    arguments = parse_arguments()
    use_format(arguments.figure_format)
    begin = time.perf_counter()
    one_thread()
    results = output_folder(arguments.result_dir, "--result-dir")
    config = override(
        load_inversion_config(arguments.config), method=arguments.method, target_variable=arguments.targets,
        nuisance=arguments.nuisance, starts=arguments.starts, seed=arguments.seed, posterior=arguments.posterior,
        mcmc_minutes=arguments.mcmc_minutes,
    )  # fmt: skip
    others = arguments.unconstrained or arguments.refine or arguments.model != "emulator"
    if config.posterior != "draws" and others:
        raise UserError(
            f"posterior {config.posterior} is of the emulator alone: leave out --unconstrained, --refine, --model"
        )
    if arguments.refine and config.lambda_prior is not None:
        raise UserError(f"{arguments.config}: --refine draws from the posterior; it needs lambda_prior: null")
    if arguments.model == "emulator":
        emulator = load_emulator(arguments.artifacts_dir, arguments.device)
        arguments.data_dir = arguments.data_dir or str(emulator.data_directory)
        inverter = StaticParameterInverter.from_emulator(emulator, config, arguments.config, say=print)
        if arguments.each_window:
            verdict = each_window(arguments, emulator, inverter, results)
            closing(results, "", verdict, f"done in {time.perf_counter() - begin:.1f} s")
            return 0
        case = load_case(arguments, emulator)
    else:
        emulator = process_subject(arguments, config)
        case = observed_case(arguments, emulator) if arguments.obs else load_case(arguments, emulator)
        inverter = process_inversion(arguments, emulator, config, case.fitted, results, print)
    prior, prior_source = prior_parameters(emulator, arguments.data_dir, arguments.obs_prior_sample)
    facts = facts_of(arguments, case, prior_source, emulator) | label_facts(emulator)

    simulator = None
    if arguments.param_load:
        judgement, metadata = judge_snapshot(arguments, inverter, case, prior, facts)
    else:
        judgement, simulator, reach = invert(arguments, emulator, inverter, case, prior, results, facts)
        metadata = inversion_metadata(judgement) | {
            "unconstrained": arguments.unconstrained, "artifacts": str(arguments.artifacts_dir),
            "config": str(arguments.config), "command": " ".join(sys.argv),
            "best_inside_bounds": None if reach is None else reach.as_record(),
        }  # fmt: skip
    distance = ""
    if arguments.model == "emulator":
        emulator.check_ranges(judgement.optimized)
        distance = distance_sentence(inverter.space, emulator.training_parameters, judgement.optimized)
    write_outputs(
        judgement, results, facts, metadata, distance, inverter.space, simulator, arguments.param_save,
        not arguments.no_plots,
    )  # fmt: skip
    write_record(results, begin, {
        "emulator": arguments.artifacts_dir, "ensemble": arguments.data_dir, "configuration": arguments.config,
        "observations": arguments.obs or (arguments.obs_npz if arguments.mode == "observation" else None),
        "parameters": arguments.param_load, "weather": arguments.weather,
    }, seed=config.seed)  # fmt: skip
    if arguments.report:
        from calibration.reports.kinds import report_on  # slow to import: loaded only where it is needed

        print(f"report: {report_on(results)}")
    said = [f"{key}: {facts[key]}" for key in (CONFLICT, CHANGE) if key in facts]
    closing(results, following(arguments, judgement), judgement.verdict, *said,
            f"done in {time.perf_counter() - begin:.1f} s")  # fmt: skip
    return 0


def invert(
    arguments: argparse.Namespace,
    emulator: Emulator,
    inverter: StaticParameterInverter,
    case: Case,
    prior: np.ndarray,
    results: Path,
    facts: dict,
) -> tuple[Judgement, np.ndarray | None, Reach | None]:
    """The prior against the data, the fit, its refinement, its judgement, and its check by the process model.

    Returns the judgement, the process model's flux (day,) where --verify ran it, and the best that any parameters
    reach; adds lines to `facts`.
    """
    free, fix = arguments.free, arguments.fix or ()
    conflict, model, simulator = None, None, None
    around = surroundings(arguments, emulator, case) if arguments.diagnose else None
    if arguments.refine or arguments.verify:
        model = process_model(arguments, emulator, case.fitted)
        facts["process model"] = model.identity["model"]
    if not arguments.unconstrained:
        conflict = conflict_before_fit(inverter, case.fitted, prior, free, fix, inverter.prior_draws)
        say_conflict(conflict, inverter.config.targets[0])
    result = inverter.invert_stretches(prior, case.fitted, arguments.unconstrained, free, fix)
    if arguments.refine:
        inverter, result, facts["refinement"] = refine_inversion(
            model, arguments.refine, emulator, inverter, case.fitted, result, results, print
        )
    judgement = judge_inversion(case, inverter, result, conflict)
    main = judgement.main
    emulated = arguments.model == "emulator"  # a search by process model would cost as much as the inversion
    reach = best_inside_bounds(inverter, result, case.fitted, main.target) if emulated else None
    if reach is not None:
        rmse = main.table.loc["fitted"]["rmse"]
        facts[BEST] = reach.sentence(rmse["optimized"], rmse["constant"])
    if judgement.verdict.startswith(CONFLICTING):
        facts[CONFLICT] = misfit_sentence(main.dates[main.valid], (main.optimized - main.observed)[main.valid])
        if around is not None and reach is not None:
            table = looks_table(take_looks(Conflicting(emulator, inverter, case, result, reach, main.target), around))
            write_csv(results / "diagnosis.csv", table)
            facts[CHANGE] = "\n  ".join(["", *looks_lines(table, rmse["constant"])])
    if not emulated:
        facts["process model"] = inverter.runs.model.identity["model"]
        facts["runs of it"] = inverter.runs.tally()
        export_parameters(baseline_file(arguments), arguments.slots, result, results / "visit_parameters.txt")
        if arguments.artifacts_dir:
            facts["emulator beside it"] = compare_with_emulator(
                arguments, emulator, inverter.asked, case.fitted, result, results
            )
    if arguments.verify:
        simulator, lines = verify_estimate(model, result, case.fitted, judgement.main)
        facts |= lines
        export_parameters(baseline_file(arguments), arguments.slots, result, results / "visit_parameters.txt")
    return judgement, simulator, reach


def surroundings(arguments: argparse.Namespace, emulator: Emulator, case: Case) -> Surroundings:
    """What --diagnose looks at beside the emulator, read before the fit."""
    site = site_of(arguments.site, arguments.data_dir)
    weather = driving_weather(arguments.weather, arguments.data_dir, site, emulator, case.fitted)
    tower = read_weather(arguments.tower_weather, site) if arguments.tower_weather else None
    return Surroundings(site, weather, tower)


def following(arguments: argparse.Namespace, judgement: Judgement) -> str:
    """What to do next, by the verdict."""
    if judgement.result is None:
        return ""
    told = arguments.model != "emulator"  # --diagnose and --verify go with the emulator only
    if judgement.verdict.startswith(CONFLICTING):
        told |= arguments.diagnose
        return "docs/cookbook.md, task 9" if told else "the same command with --diagnose: what would help"
    told |= arguments.verify
    return "" if told else "the same command with --verify: the process model itself at the estimate"


def judge_snapshot(
    arguments: argparse.Namespace, inverter: StaticParameterInverter, case: Case, prior: np.ndarray, facts: dict
) -> tuple[Judgement, dict]:
    """The parameters of --param-load on the case's days, and what their snapshot says of them; changes `facts`."""
    loaded_prior, optimized, metadata = load_snapshot(arguments.param_load, inverter.names)
    if arguments.obs_prior_sample is None:
        prior, facts["prior"] = loaded_prior, f"the prior of {arguments.param_load}"
    facts["parameters"] = f"loaded, fitted to {metadata.get('data', 'unknown data')}"
    offsets, own = metadata.get("offsets") or {}, metadata.get("fitted_days")
    judgement = judge_parameters(case, inverter, prior, optimized, offsets, own)
    return judgement, metadata | {"judged_on": judgement.test}


def say_conflict(conflict: Conflict, target: str) -> None:
    """A line on the prior against the data, and a warning where they disagree."""
    print(f"prior against data: {conflict.sentence()}")
    if conflict.exists:
        months = ", ".join(conflict.months) or "none by itself"
        warn(f"{target_label(target)} conflicts with the prior; months: {months}")


def facts_of(arguments: argparse.Namespace, case: Case, prior_source: str, emulator: Emulator | ProcessSetup) -> dict:
    """The head of the summary."""
    parameters = from_repository(emulator.directory)
    inverted = {"emulator": parameters}
    if arguments.model != "emulator":
        inverted = {"model": f"{arguments.model}, the process model itself; parameters of {parameters}"}
    return {
        "mode": arguments.mode, "data": case.description, "windows": case.windows, "prior": prior_source, **inverted,
        "bounds": "none (unconstrained)" if arguments.unconstrained else "as configured",
    }  # fmt: skip


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
    add(
        "--model", choices=MODELS, default="emulator",
        help="what is inverted: the emulator, the built-in process model (simulator), or your own VISIT (command)",
    )  # fmt: skip
    add("--artifacts-dir", help="trained emulator (default: artifacts; with another --model: none, or one to compare)")
    add("--data-dir", help="ensemble: parameter_summary.csv (prior), runs (default: that of the emulator's training)")
    add("--result-dir", default=str(REPOSITORY / "results" / "inversion"), help="folder for tables and figures")
    add("--device", default="cpu", help="cpu, cuda, cuda:1")
    add("--no-plots", action="store_true", help="tables only")
    add("--figure-format", choices=FORMATS, default="png", help="pdf or svg for a paper")
    add_quiet(parser)
    add("--report", action="store_true", help="also write report.html: all on one page (make_report.py)")
    group = parser.add_argument_group("simulation mode")
    group.add_argument("--sample-id", type=int, default=0, help="run of the ensemble")
    group.add_argument("--window-index", type=int, default=0, help="window of the test period, 0 = its first day")
    group = parser.add_argument_group("observation mode")
    group.add_argument("--obs-npz", help="window file (default: observations/obs_windows.npz)")
    group.add_argument("--obs", metavar="CSV", help="CSV of prepare_observation_nep.py; needs another --model")
    group.add_argument("--obs-index", type=int, help="one window of the file (default: 0)")
    group.add_argument("--obs-range-start", type=iso_date, help="first day, YYYY-MM-DD: windows starting from it on")
    group.add_argument("--obs-range-end", type=iso_date, help="last day, included")
    group.add_argument("--obs-range-step", type=int, default=1, help="take every n-th window of the range")
    group.add_argument("--max-obs-windows", type=int, help="take at most the first n windows (default: all)")
    group.add_argument(
        "--each-window", action="store_true", help="invert every window of the range on its own: do parameters change?"
    )
    group.add_argument("--obs-prior-sample", type=int, help="run with the prior's parameters (default: all runs' mean)")
    group.add_argument(
        "--rescale", action="store_true", help="convert windows made with another scaler instead of refusing"
    )
    group.add_argument("--holdout-start", type=iso_date, help="first day that is kept out of the fit and judged")
    group.add_argument("--holdout-end", type=iso_date, help="last day held out, included")
    group = parser.add_argument_group("the fit")
    group.add_argument("--method", choices=METHODS, help="overrides the configuration")
    group.add_argument("--targets", nargs="+", help="fluxes to fit: nep,gpp,npp,rh,er (default: configuration)")
    group.add_argument("--free", nargs="+", metavar="NAME", help="estimate only these parameters")
    group.add_argument("--fix", nargs="+", metavar="NAME", help="keep these at the prior")
    group.add_argument(
        "--nuisance", choices=("none", "offset"), help="offset: fit a constant along with the parameters"
    )
    group.add_argument("--starts", type=int, help="starting points in one batch (default: configuration)")
    group.add_argument("--seed", type=int, help="seed of starts and samples (default: configuration)")
    group.add_argument("--posterior", choices=POSTERIORS, help="draws (seconds), tempered (wide ranges) or mcmc")
    group.add_argument("--mcmc-minutes", type=float, help="longest time of --posterior tempered or mcmc")
    group.add_argument("--unconstrained", action="store_true", help="no bounds, no prior term (and so no posterior)")
    group.add_argument("--param-save", metavar="JSON", help="also write the parameter snapshot here")
    group.add_argument("--param-load", metavar="JSON", help="no inversion: judge the parameters of a snapshot")
    group = parser.add_argument_group("where the verdict is CONFLICTS WITH THE MODEL")
    group.add_argument("--diagnose", action="store_true", help="quick looks at what would change it (diagnosis.csv)")
    group.add_argument(
        "--tower-weather", metavar="FILE", help="for --diagnose: output of prepare_observation_meteorology.py"
    )
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
    add_command_arguments(parser.add_argument_group("your own VISIT in its place, as in run_perturbations.py"))
    group.add_argument("--jobs", type=int, help="runs of your own VISIT at a time (default: 2)")
    group.add_argument("--dask-scheduler", help="tcp://host:8786: runs of your own VISIT go there")
    add_reproduce(parser, "--result-dir")
    arguments = parser.parse_args()
    observing = [
        arguments.obs, arguments.obs_npz, arguments.obs_range_start, arguments.obs_range_end, arguments.obs_index,
        arguments.each_window or None,
    ]  # fmt: skip
    if arguments.mode is None:
        arguments.mode = "observation" if any(value is not None for value in observing) else "simulation"
    if arguments.targets:
        arguments.targets = ",".join(arguments.targets)
    arguments.obs_npz = arguments.obs_npz or str(REPOSITORY / "observations" / "obs_windows.npz")
    if arguments.model == "emulator":
        arguments.artifacts_dir = arguments.artifacts_dir or str(REPOSITORY / "artifacts")
    elif arguments.mode == "simulation" and not arguments.data_dir:
        arguments.data_dir = str(REPOSITORY / "data")
    check_arguments(arguments)
    check_each_window(arguments)
    if (arguments.holdout_start is None) != (arguments.holdout_end is None):
        raise UserError("--holdout-start and --holdout-end belong together; give both (YYYY-MM-DD)")
    if arguments.holdout_start and arguments.holdout_start > arguments.holdout_end:
        raise UserError(f"--holdout-start {arguments.holdout_start} lies after --holdout-end {arguments.holdout_end}")
    if arguments.obs_index is not None and (arguments.obs_range_start or arguments.obs_range_end):
        raise UserError("--obs-index chooses one window and --obs-range-* many; give one of them")
    for name, least in (("obs_range_step", 1), ("max_obs_windows", 1), ("jobs", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be {least} or more")
    check_runs(arguments.refine)
    if arguments.refine and arguments.unconstrained:
        raise UserError("--refine draws from the posterior, which --unconstrained leaves out; give one of them")
    own = arguments.run_folder or arguments.command_template
    if own and arguments.model != "command" and not (arguments.refine or arguments.verify):
        raise UserError("your own VISIT is what --refine and --verify run, and --model command; give one of these too")
    if arguments.diagnose and arguments.model != "emulator":
        raise UserError("--diagnose asks the emulator; leave out --model, or --diagnose")
    if arguments.tower_weather and not arguments.diagnose:
        raise UserError("--tower-weather is what --diagnose looks at; give --diagnose too")
    if arguments.param_load and (arguments.diagnose or arguments.refine or arguments.verify):
        raise UserError("--param-load judges given parameters; --refine, --verify, --diagnose belong to an inversion")
    return arguments


if __name__ == "__main__":
    run(main)
