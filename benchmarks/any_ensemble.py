"""Skill of the presets on ensembles of wide ranges, labelled right or as delivered: seen and unseen runs.

    python benchmarks/any_ensemble.py --slots SLOTS.csv --labels LABELS.csv --weather WEATHER.csv --folder SCRATCH

SLOTS.csv: sample_id and the values by true slots, as simulated; LABELS.csv: the same rows as delivered.
`second` is another Latin hypercube in the box of the same columns. Trains as train.py does for one preset (no error
model), one thread each; nothing is tuned on the unseen runs.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calibration.common import skill  # noqa: E402
from calibration.common.command_line import make_parser, run  # noqa: E402
from calibration.common.configuration import load_configuration  # noqa: E402
from calibration.common.sites import load_site  # noqa: E402
from calibration.common.units import TARGETS  # noqa: E402
from calibration.emulator.cross_fit import fit_in_memory  # noqa: E402
from calibration.ensembles import store  # noqa: E402
from calibration.visit.simulator import simulate  # noqa: E402
from calibration.weather.daily import Weather, read_weather  # noqa: E402
from dataset import load_data  # noqa: E402

CONTEXT = 180  # days that only set the state


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    folder, weather = Path(arguments.folder), read_weather(arguments.weather, load_site())
    slots, labels = pd.read_csv(arguments.slots), pd.read_csv(arguments.labels)
    second = another_draw(slots, seed=77)
    tables = {
        "wide, right labels": (slots, slots), "wide, as delivered": (slots, labels),
        "second, right labels": (second, second),
        "second, as delivered": (second, second.set_axis(labels.columns, axis=1)),
    }  # fmt: skip
    print("| ensemble | preset | split | seen NEP | unseen NEP | unseen GPP | CPU s |\n|---|---|---|---|---|---|---|")
    for what, (values, table) in tables.items():
        directory = folder / what.replace(", ", "_").replace(" ", "_")
        write_ensemble(directory, values, table, weather)
        for preset in ["learned"] if "delivered" in what else ["recommended", "with_year"]:
            for split in arguments.splits:
                seen, unseen, gpp, seconds = skill_of(directory, preset, split)
                print(f"| {what} | {preset} | {split} | {seen:.3f} | {unseen:.3f} | {gpp:.3f} | {seconds:.0f} |")
    return 0


def another_draw(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A Latin hypercube of as many rows in the box that the columns of `table` span."""
    names = [name for name in table.columns if name != "sample_id"]
    low, high = table[names].min().to_numpy(), table[names].max().to_numpy()
    rng, count = np.random.default_rng(seed), len(table)
    unit = np.stack([rng.permutation(count) for _ in names], axis=1) + rng.random((count, len(names)))
    values = pd.DataFrame(low + unit / count * (high - low), columns=names)
    values.insert(0, "sample_id", range(count))
    return values


def write_ensemble(directory: Path, values: pd.DataFrame, table: pd.DataFrame, weather: Weather) -> None:
    """Simulate `values` and write them with `table` as parameter_summary.csv."""
    columns = {name: values[name].to_numpy(float) for name in values.columns if name != "sample_id"}
    result = simulate(columns, weather, load_site())
    fluxes = np.stack([result.flux(name) for name in TARGETS], axis=2)
    directory.mkdir(parents=True, exist_ok=True)
    key = store.key(table["sample_id"].to_numpy(), None)
    store.write(directory / "ensemble.npz", key, weather.dates, weather.values, fluxes)
    table.to_csv(directory / "parameter_summary.csv", index=False)


def skill_of(directory: Path, preset: str, split: int) -> tuple[float, float, float, float]:
    """R2 of seen NEP, unseen NEP and unseen GPP in the test year (free running, pooled), and seconds of one core."""
    config = load_configuration(preset=preset).override("splits", seed=split)
    data = load_data(config, directory)
    config = config.for_runs(len(data.ensemble.sample_ids))
    began = time.process_time()
    model, _ = fit_in_memory(config, data, torch.device("cpu"), load_site(), config.training.seed)
    seconds, days, found = time.process_time() - began, data.periods["test"], {}
    for kind in ("seen", "unseen"):
        runs, weather = getattr(data, kind), data.dynamic[days.start - CONTEXT : days.stop]
        with torch.no_grad():
            parts = torch.as_tensor(runs).split(64)
            predicted = torch.cat([model.simulate(data.static[part], weather, CONTEXT) for part in parts]).numpy()
        truth = data.truth(runs, days)
        found[kind] = {name: skill.r2(predicted[..., i], truth[..., i]) for i, name in enumerate(TARGETS)}
    return found["seen"]["nep"], found["unseen"]["nep"], found["unseen"]["gpp"], seconds


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--slots", required=True, help="CSV: sample_id and parameters by true slots")
    parser.add_argument("--labels", required=True, help="CSV: the same rows under the labels as delivered")
    parser.add_argument("--weather", required=True, help="weather of the runs")
    parser.add_argument("--folder", required=True, help="scratch folder for the ensembles")
    parser.add_argument("--splits", type=int, nargs="+", default=[2025, 1, 2], help="of the choice of unseen runs")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
