"""test_inversion.py --model simulator | command: from its arguments to an inverter of the process model, and back."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from calibration.common.command_line import UserError, existing_file, write_csv
from calibration.common.parameters import catalogue, in_model
from calibration.emulator.trained import Emulator, load_emulator
from calibration.engines.run_folder import folder_weather, read_run_folder
from calibration.inversion.config import InversionConfig
from calibration.inversion.data import Stretch
from calibration.judgement.judge import Case
from calibration.judgement.simulator_check import site_of
from calibration.weather.daily import read_weather
from calibration.workflows.named_model import process_model
from calibration.workflows.process_inverter import ProcessInverter, announce, check_config, kept_runs
from calibration.workflows.process_setup import ProcessSetup, observed_stretches, process_setup
from inverse_estimator import InversionResult, StaticParameterInverter

MODELS = ("emulator", "simulator", "command")


def check_arguments(arguments: argparse.Namespace) -> None:
    """UserError on flags that do not go together with --model."""
    own = arguments.run_folder or arguments.command_template
    if arguments.model == "emulator":
        if arguments.obs:
            raise UserError(
                "--obs goes with --model simulator or command; for the emulator build windows of it: "
                "build_observation_windows.py"
            )
        return
    flag = f"--model {arguments.model}"
    if arguments.refine or arguments.verify:
        raise UserError(f"--refine and --verify hold the emulator against the process model; {flag} needs neither")
    if arguments.unconstrained:
        raise UserError(f"{flag} needs bounds, outside of which the process model does not run; no --unconstrained")
    if arguments.model == "command" and not own:
        raise UserError("--model command runs your own VISIT; give --run-folder or --command-template")
    if arguments.model == "simulator" and own:
        raise UserError("--model simulator is the built-in process model; your own VISIT is --model command")
    if arguments.obs and arguments.mode == "simulation":
        raise UserError("--obs holds observations and --mode simulation makes them; give one of them")
    if arguments.obs and not arguments.weather and (not arguments.run_folder or arguments.write_forcing):
        raise UserError("--obs holds no weather; give --weather FILE too")
    if arguments.obs and arguments.obs_index is not None:
        raise UserError("--obs-index counts windows of a window file; choose days of --obs with --obs-range-start")


def process_subject(arguments: argparse.Namespace, config: InversionConfig) -> ProcessSetup | Emulator:
    """Whose parameters are estimated: those of the emulator in --artifacts-dir where it is given, else of the ranges.

    UserError where the emulator, or the ranges, hold a parameter that the process model does not have.
    """
    if arguments.artifacts_dir:
        subject: ProcessSetup | Emulator = load_emulator(arguments.artifacts_dir, arguments.device)
        arguments.data_dir = arguments.data_dir or _where_an_ensemble_is(subject.data_directory)
    else:
        if arguments.data_dir is not None:
            existing_file(Path(arguments.data_dir) / "parameter_summary.csv", "give the folder of an ensemble")
        windows = arguments.obs_npz if arguments.mode == "observation" and not arguments.obs else None
        subject = process_setup(config, arguments.config, arguments.data_dir, windows)
    names = subject.parameter_names
    unknown = [names[i] for i in in_model(names) if names[i] not in catalogue()]
    if unknown and arguments.model == "simulator":
        raise UserError(
            f"{subject.directory}: has the parameter {unknown[0]}, which the built-in process model does not have "
            f"({len(unknown)} of {len(subject.parameter_names)} are unknown to it); leave --artifacts-dir out for the "
            "parameters of configs/range_of_paras.csv, or invert your own VISIT with --model command"
        )
    alone = arguments.obs or arguments.data_dir is None  # else the ensemble's weather drives the runs
    if alone and arguments.run_folder and not (arguments.weather or arguments.write_forcing):
        arguments.weather = climate_file(arguments)
    return subject


def climate_file(arguments: argparse.Namespace) -> str:
    """The climate file that the runs of --run-folder read. UserError where it is no forcing text."""
    folder = read_run_folder(arguments.run_folder, arguments.program, arguments.parameter_file, arguments.leave_out)
    folder_weather(folder, None, site_of(arguments.site, arguments.data_dir))
    name = folder.climate_file
    return str(folder.outside.get(name, Path(arguments.run_folder) / name))


def _where_an_ensemble_is(folder: Path) -> str | None:
    return str(folder) if (folder / "parameter_summary.csv").is_file() else None


def observed_case(arguments: argparse.Namespace, subject: ProcessSetup | Emulator) -> Case:
    """The days of --obs under --weather."""
    site = site_of(arguments.site, arguments.data_dir)
    context = subject.configuration.evaluation.context_days if isinstance(subject, Emulator) else 0
    holdout = (arguments.holdout_start, arguments.holdout_end) if arguments.holdout_start else None
    fitted, held = observed_stretches(
        read_weather(arguments.weather, site), arguments.obs, subject.dynamic_scaler, context,
        arguments.obs_range_start, arguments.obs_range_end, holdout,
    )  # fmt: skip
    valid = fitted[0].dates[fitted[0].mask.any(axis=1)]
    if not len(valid):
        raise UserError(f"{arguments.obs}: no valid observation in the chosen days; choose others")
    text = f"{arguments.obs}, observed days {valid[0]} to {valid[-1]}"
    return Case(fitted, held, text, 1, shown=subject.shown)


def process_inversion(
    arguments: argparse.Namespace,
    subject: ProcessSetup | Emulator,
    config: InversionConfig,
    stretches: list[Stretch],
    results: Path,
    say: Callable[[str], object],
) -> ProcessInverter:
    """The inverter of the process model over the days of `stretches`, its runs kept in results/process_runs."""
    check_config(config, arguments.config)  # before anything is written
    model = process_model(arguments, subject, stretches)
    runs = kept_runs(model, subject.parameter_names, stretches, results / "process_runs")
    inverter = ProcessInverter(runs, subject.space, config, arguments.config, say)
    free = arguments.free or subject.parameter_names
    if not arguments.param_load:
        announce(runs, inverter.config, subject.space, len(set(free) - set(arguments.fix or ())), say)
    return inverter


def compare_with_emulator(
    arguments: argparse.Namespace,
    emulator: Emulator,
    config: InversionConfig,
    stretches: list[Stretch],
    result: InversionResult,
    results: Path,
) -> str:
    """The emulator's inversion of the same days beside `result`: model_comparison.csv, and a sentence for the summary.

    Columns: estimates and 90 percent intervals of both (physical), the distance of the estimates in posterior sds of
    the process model's inversion, and the ratio of the spreads, both in latent units.
    """
    inverter = StaticParameterInverter.from_emulator(emulator, config, arguments.config)
    other = inverter.invert_stretches(result.prior, stretches, False, arguments.free, arguments.fix or ())
    free = result.posterior.free
    sd = result.posterior.latent[:, : len(free)].std(axis=0)
    mean = [r.posterior.latent[:, : len(free)].mean(axis=0) for r in (result, other)]
    shift = (mean[1] - mean[0]) / sd
    ratio = other.posterior.latent[:, : len(free)].std(axis=0) / sd
    columns: dict[str, np.ndarray | list[str]] = {"param_name": [result.names[i] for i in free]}
    for name, one in (("process_model", result), ("emulator", other)):
        low, high = one.posterior.interval()
        columns |= {name: one.optimized[free], f"{name}_low": low[free], f"{name}_high": high[free]}
    columns |= {"shift_in_sds": shift, "sd_ratio": ratio}
    write_csv(results / "model_comparison.csv", pd.DataFrame(columns))
    far = int(np.abs(shift).argmax())
    return (
        f"posterior means of the emulator's inversion lie {np.sqrt(np.mean(shift**2)):.2f} posterior sds away (root "
        f"mean square; most: {columns['param_name'][far]} {shift[far]:+.2f}), its spreads are "
        f"{np.median(ratio):.2f} times as wide (median); it took {other.seconds:.0f} s, the process model "
        f"{result.seconds:.0f} s"
    )
