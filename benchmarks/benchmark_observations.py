"""Seconds to prepare 20 years of daily tower data, each script as a user runs it (start of Python included).

    python benchmarks/benchmark_observations.py

makes a FULLSET-like file of 7305 days and 300 columns in a temporary folder, and writes the section
benchmarks/results/observations.md. Target: under 2 s for each preparation.
"""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from tower_examples import fluxnet, temperate  # noqa: E402

from calibration.common.command_line import make_parser, write_text  # noqa: E402
from calibration.tower.meteorology import specific_humidity  # noqa: E402

DAYS, COLUMNS, REPEATS = 7305, 300, 3
START = "2001-01-01"


def make_inputs(folder: Path) -> dict[str, Path]:
    """A tower file with as many columns as real FULLSETs, ERA5 as a weather CSV, and VISIT's forcing text."""
    table = fluxnet(True, DAYS, 0, start=START)
    more = COLUMNS - len(table.columns)
    extra = np.random.default_rng(0).normal(size=(DAYS, more)).round(5)
    table = pd.concat([table, pd.DataFrame(extra, columns=[f"EXTRA_{k}" for k in range(more)])], axis=1)
    paths = {name: folder / name for name in ("FLX_XX-Xyz_FLUXNET2015_FULLSET_DD.csv", "era5.csv", "LHP_ERA5.txt")}
    tower, era5, forcing = paths.values()
    table.to_csv(tower, index=False)
    truth = temperate(DAYS, START)
    weather = pd.DataFrame({
        "date": truth.index.strftime("%Y-%m-%d"), "tmp_sfc": truth.ta + 273, "tmp_2m": truth.ta + 272.5,
        "tmp10_soil": 280.0, "tmp200_soil": 280.0, "dswrf_sfc": truth.sw, "tcdc_clm": 50.0,
        "prate_sfc": truth.p / 86400, "spfh_2m": specific_humidity(truth.ta, truth.vpd, truth.pa), "wind_10m": truth.ws,
    })  # fmt: skip
    weather.to_csv(era5, index=False)
    rows = zip(truth.index, weather.drop(columns="date").to_numpy(), strict=True)
    lines = []
    for day, (surface, air, soil10, soil200, light, cloud, rain, humidity, wind) in rows:
        lines.append(
            f"{day.year} {day.day_of_year} {air:.4f} {air + 3:.4f} {air - 3:.4f} {humidity:.7f} {rain:.5e} {light:.3f} "
            f"{cloud:.3f} {surface:.4f} {soil10:.4f} {soil200:.4f} {soil200:.4f} 0.3 0.3 {wind:.4f} 0.1 0.0 99000.0\n"
        )
    forcing.write_text("".join(lines))
    return {"tower": tower, "era5": era5, "forcing": forcing}


def seconds(*command: object) -> tuple[float, float]:
    """Wall time and processor time of a script, each the best of some runs."""
    walls, processors = [], []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run([sys.executable, *map(str, command)], cwd=REPOSITORY, check=True, capture_output=True)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls), min(processors)


def main() -> None:
    make_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_inputs(folder)
        size = paths["tower"].stat().st_size / 1e6
        results = {
            "start of Python with pandas (included below)": seconds("-c", "import pandas, yaml"),
            "prepare_observation_nep.py": seconds(
                "prepare_observation_nep.py", "--input", paths["tower"], "--output", folder / "nep.csv"
            ),
            "the same without the figure": seconds(
                "prepare_observation_nep.py", "--input", paths["tower"], "--output", folder / "nep.csv", "--no-figure"
            ),
            "prepare_observation_meteorology.py --fill era5": seconds(
                "prepare_observation_meteorology.py", "--input", paths["tower"], "--output", folder / "met.csv",
                "--era5", paths["era5"], "--fill", "era5", "--wind-height", "30", "--roughness", "1",
            ),
            "blend_observation_meteorology.py": seconds(
                "blend_observation_meteorology.py", "--era5-input", paths["forcing"], "--obs-csv", folder / "met.csv",
                "--output", folder / "blend.txt",
            ),
            "weather.py (generates 20 years)": seconds(
                "weather.py", "--output", folder / "w.csv", "--start", "2001-01-01", "--end", "2020-12-31"
            ),
        }  # fmt: skip
    lines = [
        "## Observations: 20 years of daily data", "",
        f"`python benchmarks/benchmark_observations.py`: {DAYS} days, {COLUMNS} columns ({size:.0f} MB), each script "
        f"with the start of Python and its figure; best of {REPEATS} runs. Machine: {os.cpu_count()} cores "
        f"{platform.machine()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} (other programs "
        "at work lengthen wall time, not processor time).", "",
        "| script | wall s | processor s |", "|---|---|---|",
        *(f"| {name} | {wall:.2f} | {processor:.2f} |" for name, (wall, processor) in results.items()), "",
    ]  # fmt: skip
    print("\n".join(lines))
    write_text(REPOSITORY / "benchmarks" / "results" / "observations.md", "\n".join(lines))


if __name__ == "__main__":
    main()
