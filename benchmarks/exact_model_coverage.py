"""Coverage of the intervals where the model is exact: truth and inversion by the process model itself, or both by the
emulator. What is wrong with the intervals then is the posterior's fault, not the emulator's.

Cases as in evaluate_parameter_recovery.py --cases: parameters anywhere in the ranges, a random first day of the
weather, noise on NEP. A case that is finished is kept in --result-dir, so that more cases can follow later.

Examples
  python benchmarks/exact_model_coverage.py --weather demo/weather.csv --cases 24 --result-dir results/exact_process
  python benchmarks/exact_model_coverage.py --weather demo/weather.csv --cases 100 --result-dir results/exact_emu \\
      --artifacts-dir demo/artifacts
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common.command_line import make_parser, read_json, run, write_json  # noqa: E402
from calibration.common.configuration import load_configuration  # noqa: E402
from calibration.common.parameters import DEFAULT_RANGES, read_ranges  # noqa: E402
from calibration.common.scalers import Scaler  # noqa: E402
from calibration.common.sites import load_site  # noqa: E402
from calibration.common.units import DYNAMIC_FEATURES, TARGETS  # noqa: E402
from calibration.emulator.trained import Emulator, load_emulator  # noqa: E402
from calibration.inversion.config import POSTERIORS, InversionConfig, load_inversion_config, override  # noqa: E402
from calibration.inversion.data import day_index  # noqa: E402
from calibration.judgement.recovery_statistics import coverage_sentence, study_summary  # noqa: E402
from calibration.judgement.recovery_study import (  # noqa: E402
    CASE_SEEDS,
    Study,
    StudyCase,
    against_truth,
    case_path,
    case_vectors,
    make_case,
    prepare_directory,
    side_by_side,
    simulated_truth,
)
from calibration.judgement.simulator_check import ProcessModel, simulate_vectors  # noqa: E402
from calibration.weather.daily import Weather, read_weather, weather_hash  # noqa: E402
from calibration.workflows.process_inverter import ProcessInverter, kept_runs  # noqa: E402
from calibration.workflows.process_setup import ProcessSetup  # noqa: E402
from inverse_estimator import StaticParameterInverter  # noqa: E402


@dataclass(frozen=True)
class Benchmark:
    """What all cases share."""

    folder: Path
    weather: Weather
    study: Study
    config: InversionConfig
    model: Emulator | ProcessSetup


def main() -> int:
    arguments = parse_arguments()
    site, folder = load_site(), Path(arguments.result_dir)
    weather, study = read_weather(arguments.weather, site), Study(arguments.cases, arguments.span, arguments.noise)
    config = override(load_inversion_config(), seed=arguments.seed, posterior=arguments.posterior)
    config = replace(config, error_model=replace(config.error_model, emulator=False))
    model = load_emulator(arguments.artifacts_dir) if arguments.artifacts_dir else without_emulator()
    settings = {
        "cases": study.cases, "span_days": study.span, "noise": study.noise, "noise_known": True, "gaps": 0.0,
        "seed": config.seed, "targets": ["nep"], "truths": "Sobol",
        "posterior": config.posterior, "weather": weather_hash(weather),
        "model": str(arguments.artifacts_dir),
    }  # fmt: skip
    prepare_directory(folder, settings, overwrite=False)
    vectors = case_vectors(model, study.cases, config.seed)
    truth = np.zeros((study.cases, len(weather), len(TARGETS)), dtype=np.float32)  # the emulator's is made by the case
    if arguments.artifacts_dir is None:
        simulate = partial(simulate_vectors, names=model.parameter_names, weather=weather, site=site)
        truth = simulated_truth(folder / "truth.npz", vectors, weather, simulate, arguments.jobs)
    call = partial(one_case, Benchmark(folder, weather, study, config, model))
    missing = [i for i in range(study.cases) if not case_path(folder, i).is_file()]
    for case in side_by_side(arguments.jobs, call, [(i, vectors[i], truth[i]) for i in missing]):
        print(f"case {case} is finished", flush=True)
    results = [read_json(case_path(folder, i)) for i in range(study.cases)]
    summary = study_summary(results, model.parameter_names, settings)
    write_json(folder / "recovery_study.json", summary)
    print(
        f"{len(results)} cases of {study.span} days, noise {study.noise}: coverage {summary['coverage_90']:.3f}, "
        f"annual NEP {summary['annual_nep_coverage_90']:.2f}, sd of z {summary['z_sd']:.2f}, "
        f"{np.median([item['runs'] for item in results]):.0f} runs a case; by parameter: {coverage_sentence(summary)}"
    )
    return 0


def without_emulator() -> ProcessSetup:
    """Parameters and ranges of range_of_paras.csv, weather in physical units."""
    space = read_ranges(DEFAULT_RANGES)
    scaler = Scaler(DYNAMIC_FEATURES, np.zeros(len(DYNAMIC_FEATURES)), np.ones(len(DYNAMIC_FEATURES)))
    middle = space.unit_to_physical(np.full((1, len(space)), 0.5))
    return ProcessSetup(DEFAULT_RANGES, load_configuration(), space, scaler, middle)


def one_case(benchmark: Benchmark, task: tuple[int, np.ndarray, np.ndarray]) -> int:
    """Invert a case (number, parameters (parameter,), fluxes (day, 4) of the truth) and write its result."""
    torch.set_num_threads(1)
    number, vector, fluxes = task
    model, config = benchmark.model, benchmark.config
    case = make_case(number, fluxes, model, benchmark.weather, benchmark.study, config.seed)
    own = replace(config, seed=config.seed + CASE_SEEDS * (number + 1))
    if isinstance(model, Emulator):
        inverter = StaticParameterInverter.from_emulator(model, own)
        case = by_the_emulator(benchmark, inverter, case, vector)
    else:
        inverter = process_inverter(model, own, benchmark.weather, case)
    middle = model.space.unit_to_physical(np.full(len(model.space), 0.5))
    result = inverter.invert_stretches(middle, [case.observed])
    runs = result.problem.evaluations if isinstance(model, Emulator) else inverter.runs.made
    found = {"case": number, "start": case.start, **against_truth(inverter, result, case, vector), "runs": runs}
    write_json(case_path(benchmark.folder, number), found | {"moving": result.posterior.moving})
    return number


def by_the_emulator(
    benchmark: Benchmark, inverter: StaticParameterInverter, case: StudyCase, vector: np.ndarray
) -> StudyCase:
    """The case again, with the emulator's own fluxes as its truth."""
    weather, fluxes = benchmark.weather, np.zeros((len(benchmark.weather), len(TARGETS)))
    with torch.no_grad():
        made = inverter.forward([case.clean])(torch.as_tensor(vector[None]))[0][0].numpy()
    fluxes[day_index(case.clean.dates, weather.dates[0])] = made
    return make_case(case.number, fluxes, benchmark.model, weather, benchmark.study, benchmark.config.seed)


def process_inverter(
    setup: ProcessSetup, config: InversionConfig, weather: Weather, case: StudyCase
) -> ProcessInverter:
    """The inversion of a case by the process model, its runs in memory."""
    site = load_site()

    def runs(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(run, parameter) physical -> index and fluxes (day, 4) Mg C ha-1 day-1 of each run."""
        yield from enumerate(simulate_vectors(values, setup.parameter_names, weather, site, jobs=1))

    model = ProcessModel(weather, runs, {"model": "built-in process model"}, site)
    return ProcessInverter(kept_runs(model, setup.parameter_names, [case.clean], None), setup.space, config)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--weather", required=True, help="weather of truths and runs, in VISIT's units")
    parser.add_argument("--artifacts-dir", help="emulator that makes the truths and is inverted (default: none)")
    parser.add_argument("--posterior", choices=POSTERIORS, default="draws", help="tempered needs --artifacts-dir")
    parser.add_argument("--cases", type=int, default=24, help="number of truths")
    parser.add_argument("--span", type=int, default=365, help="observed days")
    parser.add_argument("--noise", type=float, default=0.005, help="sd of white noise, Mg C ha-1 day-1")
    parser.add_argument("--seed", type=int, default=2025, help="of truths, noise, starts and draws")
    parser.add_argument("--result-dir", required=True, help="folder for the cases")
    parser.add_argument("--jobs", type=int, default=2, help="cases side by side, one core each")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
