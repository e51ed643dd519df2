"""What is settled before a training begins: the ensemble's labels, its site, the device."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from calibration.common.command_line import UserError, warn
from calibration.common.parameters import catalogue
from calibration.common.sites import Site, other_constants, say_default
from calibration.emulator.trained import usable_device
from calibration.ensembles.files import LOG, Ensemble, noted_site
from calibration.ensembles.label_check import checked_before
from calibration.ensembles.labels import LabelMap, read_labels, write_labels

CHECK, TRUST = "check", "trust"  # of train.py --labels
SEARCH_SECONDS = 180.0  # for looking where wrongly labelled columns went


def choose_device(name: str, local_rank: int) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda`...; UserError when it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{local_rank}"
    return usable_device(name)


def warn_of_another_site(directory: Path, site: Site) -> None:
    """Say so when the ensemble's log names other site constants than `site`, or none and the site is the default: a
    forgotten --site goes unnoticed else.
    """
    log, noted = directory / LOG, noted_site(directory)
    say_default(site, None if noted else directory)
    for name, (there, here) in other_constants(site, noted).items():
        if name != "variant":  # training does not depend on VISIT's version
            warn(
                f"{log}: the runs were made with {name} {there}, training supposes {here} ({site.name}); "
                "give the ensemble's site with --site"
            )
            break


def settle_labels(
    mode: str, ensemble: Ensemble, site: Site, folder: str | Path, say: Callable[[str], object]
) -> LabelMap | None:
    """The label map of `mode` (CHECK, TRUST or a file), None for the table's own labels.

    UserError, with the map written beside the ensemble (or in `folder`), where the outputs contradict the labels.
    """
    if mode not in (CHECK, TRUST):
        return read_labels(mode, ensemble.directory)
    if mode == TRUST:
        return None
    if not any(name in catalogue() for name in ensemble.parameter_names):
        say("labels: none of the columns is a parameter of VISIT; trained without closed forms")
        return None
    say("checking the labels: a few runs are simulated again (--labels trust leaves it out) ...")
    try:
        found = checked_before(ensemble, site, lambda line: say(f"  {line}"), SEARCH_SECONDS)
    except UserError as error:  # weather of less than a year, say: no simulation, no check
        warn(f"the labels are not checked: {error}")
        return None
    if not found.contradicts:
        tell = say if found.verdict == "agrees" else warn
        tell(f"labels: {found.verdict}: {' '.join(found.lines)}")
        return None
    say("\n".join(["the outputs contradict the labels:", *found.lines]))
    path = write_labels(writable(ensemble.directory, folder), found.label_map(ensemble.directory))
    command = f"python train.py --data-dir {ensemble.directory}"
    raise UserError(
        f"{ensemble.directory}: {len(found.suspect_columns)} columns of parameter_summary.csv carry the wrong label; "
        f"train with them put right: `{command} --labels {path}`, or as they are, without closed forms: "
        f"`{command} --labels {TRUST}`"
    )


def writable(*folders: str | Path) -> Path:
    """The first of the folders in which a file can be written; the last one otherwise."""
    return next((Path(folder) for folder in folders if os.access(folder, os.W_OK)), Path(folders[-1]))
