"""Skill of the presets on ensembles as users have them: wide ranges, labels right or as delivered, relaxed forests,
other parameters; seen and unseen runs.

    python benchmarks/any_ensemble.py --slots SLOTS.csv --labels LABELS.csv --weather WEATHER.csv --folder SCRATCH

SLOTS.csv: sample_id and the values by true slots, as simulated; LABELS.csv: the same rows as delivered.
`second` is another Latin hypercube in the box of the same columns. Trains as train.py does for one preset (no error
model), one thread each; nothing is tuned on the unseen runs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common import skill  # noqa: E402
from calibration.common.command_line import REPOSITORY, make_parser, run  # noqa: E402
from calibration.common.configuration import load_configuration  # noqa: E402
from calibration.common.parameters import ParameterSpace, catalogue, read_ranges  # noqa: E402
from calibration.common.sites import load_site  # noqa: E402
from calibration.common.units import FLUX_LABELS, TARGETS  # noqa: E402
from calibration.emulator.cross_fit import fit_in_memory  # noqa: E402
from calibration.engines.perturbation import draw  # noqa: E402
from calibration.ensembles import store  # noqa: E402
from calibration.ensembles.rest import runs_at_rest  # noqa: E402
from calibration.visit.simulator import simulate  # noqa: E402
from calibration.weather.daily import Weather, read_weather  # noqa: E402
from dataset import load_data  # noqa: E402

CONTEXT = 180  # days that only set the state
COLUMNS = ("seen NEP", "unseen NEP", "unseen at rest NEP", "unseen GPP", "unseen at rest GPP")
RELAXED = REPOSITORY / "configs" / "range_of_paras_relaxed.csv"
TREE = "ek0 gs_b1 kmci cmpcd0 rmc_s rmr_s f_sz_s rgf km_nstl pmax lue sla lf0 rmf0".split()
SOIL = "sr_ha sr_hi kml kmh sr_lf f_hm_a".split()
OTHER = [*(f"tree_{name}" for name in TREE), "c3_ek0", "c3_pmax", "c3_lue", *(f"soil_{name}" for name in SOIL)]


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    folder, weather = Path(arguments.folder), read_weather(arguments.weather, load_site())
    slots, labels = pd.read_csv(arguments.slots), pd.read_csv(arguments.labels)
    second, many = another_draw(slots, 180, seed=77), another_draw(slots, 800, seed=78)
    plausible, relaxed = drawn(read_ranges(), 180), drawn(read_ranges(RELAXED), 600)
    cases = {
        "wide, right labels": (slots, slots, "recommended"), "wide, as delivered": (slots, labels, "learned"),
        "second, right labels": (second, second, "recommended"),
        "second, as delivered": (second, second.set_axis(labels.columns, axis=1), "learned"),
        "wide, right labels, 800 runs": (many, many, "recommended"),
        "plausible ranges": (plausible, plausible, "recommended"),
        "relaxed, 600 runs": (relaxed, relaxed, "with_year"),
        "23 other parameters": (other := around_baseline(OTHER, 180), other, "recommended"),
    }  # fmt: skip
    print(f"| ensemble | preset | split | {' | '.join(COLUMNS)} | CPU s |\n|---|---|---{'|---' * len(COLUMNS)}|---|")
    for what in arguments.cases or cases:
        values, table, preset = cases[what]
        directory = folder / what.replace(", ", "_").replace(" ", "_")
        write_ensemble(directory, values, table, weather)
        for split in arguments.splits:
            found, seconds = skill_of(directory, preset, split)
            numbers = " | ".join(f"{found[column]:.3f}" for column in COLUMNS)
            print(f"| {what} | {preset} | {split} | {numbers} | {seconds:.0f} |", flush=True)
    return 0


def numbered(values: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """A parameter table of values (run, parameter) physical."""
    table = pd.DataFrame(values, columns=list(names))
    table.insert(0, "sample_id", range(len(table)))
    return table


def hypercube(low: np.ndarray, high: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A Latin hypercube (count, parameter) between low and high, (parameter,) each, physical."""
    rng = np.random.default_rng(seed)
    unit = np.stack([rng.permutation(count) for _ in low], axis=1) + rng.random((count, len(low)))
    return low + unit / count * (high - low)


def another_draw(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """A Latin hypercube of `count` rows in the box that the columns of `table` span."""
    values = table.drop(columns="sample_id")
    return numbered(hypercube(values.min().to_numpy(), values.max().to_numpy(), count, seed), values.columns)


def around_baseline(names: Sequence[str], count: int) -> pd.DataFrame:
    """Each parameter within 40 percent of its baseline."""
    baseline = np.array([catalogue()[name].baseline for name in names])
    return numbered(hypercube(0.6 * baseline, 1.4 * baseline, count, seed=5), names)


def drawn(space: ParameterSpace, count: int) -> pd.DataFrame:
    """A draw as run_perturbations.py makes it."""
    return numbered(draw(space, count, seed=1), space.names)


def write_ensemble(directory: Path, values: pd.DataFrame, table: pd.DataFrame, weather: Weather) -> None:
    """Simulate `values` and write them with `table` as parameter_summary.csv."""
    columns = {name: values[name].to_numpy(float) for name in values.columns if name != "sample_id"}
    result = simulate(columns, weather, load_site())
    fluxes = np.stack([result.flux(name) for name in TARGETS], axis=2)
    directory.mkdir(parents=True, exist_ok=True)
    key = store.key(table["sample_id"].to_numpy(), None)
    store.write(directory / "ensemble.npz", key, weather.dates, weather.values, fluxes)
    table.to_csv(directory / "parameter_summary.csv", index=False)


def skill_of(directory: Path, preset: str, split: int) -> tuple[dict[str, float], float]:
    """R2 in the test year by COLUMNS (free running, pooled over runs), and seconds of one core."""
    config = load_configuration(preset=preset).override("splits", seed=split)
    data = load_data(config, directory)
    config = config.for_runs(len(data.ensemble.sample_ids))
    began = time.process_time()
    model, _ = fit_in_memory(config, data, torch.device("cpu"), load_site(), config.training.seed)
    seconds, days, found = time.process_time() - began, data.periods["test"], {}
    rest = runs_at_rest(data.ensemble)
    kinds = {"seen": data.seen, "unseen": data.unseen, "unseen at rest": data.unseen[rest[data.unseen]]}
    for kind, runs in kinds.items():
        predicted, truth = data.predicted(model, runs, days, CONTEXT), data.truth(runs, days)
        for i, name in enumerate(TARGETS):
            found[f"{kind} {FLUX_LABELS[name]}"] = skill.r2(predicted[..., i], truth[..., i])
    return found, seconds


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--slots", required=True, help="CSV: sample_id and parameters by true slots")
    parser.add_argument("--labels", required=True, help="CSV: the same rows under the labels as delivered")
    parser.add_argument("--weather", required=True, help="weather of the runs")
    parser.add_argument("--folder", required=True, help="scratch folder for the ensembles")
    parser.add_argument("--cases", nargs="+", help="rows of the table (default: all)")
    parser.add_argument("--splits", type=int, nargs="+", default=[2025, 1, 2], help="of the choice of unseen runs")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
