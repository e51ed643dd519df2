"""Tower weather over ERA5 in VISIT's forcing text: only the tower's columns, only on the days that it has.

    python blend_observation_meteorology.py --era5-input LHP_ERA5.txt --obs-csv observations/met_obs.csv \\
        --output LHP_BLEND.txt

The forcing text has 19 fields a day (weather/forcing_file.py). Replaced are mean 2 m temperature, surface temperature,
specific humidity, precipitation (kg m-2 s-1), shortwave, wind (u and v keep their direction), and cloud (percent) where
it was estimated from the tower's shortwave. Soil, snow, pressure, minimum and maximum temperature stay as they are.
Fields that are not replaced keep their text to the character. Values that the CSV's sidecar of sources calls ERA5 are
not taken. A JSON manifest beside the output holds counts and hashes.
"""

import hashlib
import time
from pathlib import Path

import pandas as pd

from calibration.common.command_line import UserError, make_parser, not_an_input, run, warn, write_json
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.tower.blending import blend, check_agreement, check_forcing, extremes_outside, read_tower_weather
from calibration.tower.meteorology import sidecar_path
from calibration.weather.forcing_file import read_forcing, write_forcing


def main() -> None:
    begin = time.perf_counter()
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--era5-input", required=True, help="VISIT's forcing text, 19 fields a day")
    add("--obs-csv", required=True, help="tower weather from prepare_observation_meteorology.py, VISIT's units")
    add("--output", required=True, help="forcing text to write (and NAME.json, the manifest)")
    add("--first-day", type=int, choices=(0, 1), help="number that the forcing gives 1 January (default: found out)")
    add("--use-cloud", action="store_true", help="take cloud from a CSV that has no sidecar of sources")
    add(
        "--trust-era5",
        action="append",
        default=[],
        metavar="VARIABLE",
        help="blend this variable although the two differ as in another unit (repeatable)",
    )
    add_reproduce(parser, "--output")
    arguments = parser.parse_args()
    output = Path(arguments.output)
    not_an_input(output, arguments.era5_input, arguments.obs_csv)

    forcing = read_forcing(arguments.era5_input, arguments.first_day)
    check_forcing(forcing)
    tower, has_sidecar = read_tower_weather(arguments.obs_csv, arguments.use_cloud)
    outside = int((~tower.index.isin(pd.DatetimeIndex(forcing.dates))).sum())
    if outside == len(tower):
        raise UserError(
            f"{arguments.obs_csv}: has days from {tower.index.min().date()} to {tower.index.max().date()}, "
            f"{arguments.era5_input} from {forcing.dates[0]} to {forcing.dates[-1]}: no day in common"
        )
    if outside:
        warn(f"{outside} of {len(tower)} tower days are not in {arguments.era5_input} and are left out")
    check_agreement(forcing, tower, arguments.trust_era5)
    lines, counts = blend(forcing, tower)
    if not any(counts.values()):
        raise UserError(f"{arguments.obs_csv}: holds no tower value on any day of the forcing; nothing to blend")
    write_forcing(output, forcing, lines)
    changed = sum(old != new for old, new in zip(forcing.lines, lines, strict=True))
    inverted = extremes_outside(forcing, tower)
    if inverted:
        warn(f"on {inverted} days the tower's mean temperature lies outside ERA5's minimum and maximum, which stay")
    write_json(output.with_name(output.name + ".json"), {
        "era5_input": file_facts(arguments.era5_input), "obs_csv": file_facts(arguments.obs_csv),
        "sidecar": file_facts(sidecar_path(Path(arguments.obs_csv))) if has_sidecar else None,
        "output": file_facts(output), "days": len(lines), "days_changed": changed, "days_replaced": counts,
        "tower_days_outside": outside, "first_day_number": forcing.first_day,
        "mean_temperature_outside_extremes_days": inverted,
    })  # fmt: skip
    write_record(output.parent, begin, {
        "ERA5": arguments.era5_input, "tower weather": arguments.obs_csv,
        "its sources": sidecar_path(Path(arguments.obs_csv)) if has_sidecar else None,
    }, output.name)  # fmt: skip
    print(f"wrote {output}: {len(lines)} days, {changed} changed")
    for name, count in counts.items():
        print(f"  {name}: {count} days from the tower")


def file_facts(path: str | Path) -> dict[str, str | int]:
    """Name, size and SHA-256 of a file, for the manifest."""
    content = Path(path).read_bytes()
    return {"file": Path(path).name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    run(main)
