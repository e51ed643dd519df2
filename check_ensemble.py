"""Check whether an ensemble's outputs follow from its parameter labels, its weather and its site.

    python check_ensemble.py --data-dir data

Re-simulates a few runs with the process model here. When the outputs do not follow, it looks for what explains them:
columns whose values went into another slot of VISIT's parameter file (blocks shifted, swaps), other site constants, or
another weather than the one in the files. One published ensemble had eight of 36 columns mislabelled, unnoticed.

Verdicts: agrees | other variant (of VISIT) | wrong label | other site constants | other weather | identical runs |
unexplained. A column without any effect on the fluxes cannot be checked. With real VISIT's outputs expect a misfit of
about 1 percent even when all is right; annual NEP must agree too. Where labels are wrong, FOLDER/parameter_labels.yaml
says where the columns went, for train.py --labels.
"""

import argparse
import time
from pathlib import Path

from calibration.common.command_line import REPOSITORY, UserError, add_quiet, closing, make_parser, run, write_json
from calibration.common.provenance import write_record
from calibration.common.reproduction import add_reproduce
from calibration.common.sites import DEFAULT_SITE, load_site, say_default, with_variant
from calibration.ensembles.files import load_ensemble, noted_site
from calibration.ensembles.label_check import RUNS, check_labels
from calibration.ensembles.labels import write_labels


def main() -> int:
    begin = time.perf_counter()
    arguments = parse_arguments()
    site = with_variant(load_site(arguments.site), arguments.variant)
    ensemble = load_ensemble(arguments.data_dir, arguments.columns, drop=arguments.drop_columns)
    say_default(site, None if noted_site(ensemble.directory) else ensemble.directory)
    print(
        f"{ensemble.directory}: {len(ensemble.sample_ids)} runs, {len(ensemble.parameter_names)} columns, "
        f"{ensemble.dates[0]} to {ensemble.dates[-1]}"
    )
    found = check_labels(ensemble, site, arguments.weather, arguments.runs, arguments.jobs, print)
    train = f"python train.py --data-dir {ensemble.directory}"
    if arguments.report:
        write_json(arguments.report, found.as_report())
        output, inputs = Path(arguments.report), {"ensemble": arguments.data_dir, "weather": arguments.weather}
        write_record(output.parent, begin, {**inputs, "site": arguments.site}, output.name)
    if found.verdict == "wrong label":
        train += f" --labels {write_labels(ensemble.directory, found.label_map(ensemble.directory))}"
    closing("", train if found.verdict in ("agrees", "wrong label") else "",
            f"verdict: {found.verdict}", *found.lines)  # fmt: skip
    return 1 if arguments.strict and found.verdict != "agrees" else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--data-dir", default=str(REPOSITORY / "data"), help="folder of the daily files and parameter_summary.csv")
    add_quiet(parser)
    add("--runs", type=int, default=RUNS, help="runs to simulate again")
    add("--weather", help="weather of the whole simulation, if longer than the daily files (default: theirs)")
    add("--site", default=str(DEFAULT_SITE), help="site YAML that the ensemble is supposed to be of")
    add("--variant", nargs="+", metavar="NAME[=VALUE]", help="another version of VISIT than the site YAML's, see there")
    add("--columns", nargs="+", help="column names of the daily files in order (default: VISIT's)")
    add("--drop-columns", nargs="+", help="columns of parameter_summary.csv that are no parameters")
    add("--jobs", type=int, help="threads (default: all cores)")
    add("--report", help="also write the result to this JSON file")
    add("--strict", action="store_true", help="exit code 1 unless the outputs agree with the labels")
    add_reproduce(parser, "--report")
    arguments = parser.parse_args()
    if arguments.runs < 3:
        raise UserError(f"--runs is {arguments.runs}; at least 3 are needed to tell causes apart")
    return arguments


if __name__ == "__main__":
    run(main)
