"""One trial before thousands of runs: the baseline twice and one perturbed run of a user's VISIT, and what they tell.

A wrong set-up is cheap to notice with three runs and dear with three thousand: a program that ignores its parameters
gives an ensemble that looks well in every file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.common.command_line import UserError
from calibration.common.parameters import catalogue
from calibration.common.sites import Site
from calibration.common.units import DAYS_PER_YEAR, TARGETS
from calibration.engines.builtin import RunResult
from calibration.engines.command import FolderEngine, ProgramEngine
from calibration.engines.visit_output import FLUX_UNITS
from calibration.weather.daily import Weather

STEP = 0.5  # how far the perturbed run goes from the baseline to a run of the ensemble
BETWEEN = 5.0  # factor by which VISIT's mean GPP may lie off the process model's before the unit is in doubt
CLEAR = 3.0  # times the difference of two equal runs that parameters have to make
NEAR = 2.0  # factor within which another unit explains it


@dataclass(frozen=True)
class Trial:
    """What came of a trial that passed: a note on it ('' if nothing is to be said) and seconds of a run."""

    note: str
    seconds: float


def try_out(
    engine: ProgramEngine, names: Sequence[str], values: np.ndarray, run: Callable[[np.ndarray], list[RunResult]],
    expected_gpp: float | None = None,
) -> Trial:  # fmt: skip
    """Run the trial. UserError, with VISIT's last words, when the ensemble would be wrong.

    values: (run, parameter) physical, of the ensemble. run: values (3, parameter) -> their results in order.
    expected_gpp: mean GPP, Mg C ha-1 day-1, of the process model at the baseline; None: the unit is not judged.
    """
    base = engine.baseline(names)
    away = (np.abs(values - base) / (np.ptp(values, axis=0) + 1e-9 * np.abs(base) + 1e-300)).sum(axis=1)
    row = values[away.argmax()]  # far from the baseline, so that what it changes can be seen
    if np.allclose(row, base, rtol=1e-9):
        raise UserError("every run of the ensemble has the baseline's parameters; widen the --ranges")
    first, again, other = run(np.stack([base, base, base + STEP * (row - base)]))
    for result, what in ((first, "the baseline"), (again, "the baseline"), (other, "other parameters")):
        if result.fluxes is None:
            raise UserError(f"trial run with {what} failed, so no ensemble was begun: {result.message}")
    _check_unit(engine, first.fluxes, expected_gpp)
    noise = _distance(first.fluxes, again.fluxes)
    effect = _distance(first.fluxes, other.fluxes)
    if effect <= CLEAR * noise:
        raise UserError(_ignored(engine, noise))
    note = ""
    if noise:
        annual = (again.fluxes - first.fluxes).mean(axis=0) * DAYS_PER_YEAR
        note = (
            "two runs with the same parameters differ by "
            + ", ".join(f"{name} {value:+.2g}" for name, value in zip(TARGETS, annual, strict=True))
            + " Mg C ha-1 year-1: does your VISIT draw the order of its spin-up years by chance? Fix its seed if it can"
        )
    return Trial(note, max(first.seconds, again.seconds, other.seconds))


def expected_gpp(weather: Weather | None, site: Site, names: Sequence[str]) -> float | None:
    """Mean GPP, Mg C ha-1 day-1, that the process model has at the baseline; None where it cannot say."""
    if weather is None or not set(names) <= set(catalogue()):
        return None
    from calibration.visit.simulator import simulate  # compiled code: loaded only where it is needed

    try:
        return float(simulate({}, weather, site, jobs=1).gpp.mean())
    except UserError:  # weather without a whole year
        return None


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def _ignored(engine: ProgramEngine, noise: float) -> str:
    """Why nothing depends on the parameters, in words."""
    text = "the binary does not read the parameters you gave it: a trial run with other parameters than the baseline "
    text += "gave the same output" if not noise else "differed from it no more than two runs with equal parameters"
    if isinstance(engine, FolderEngine):
        others = ", ".join(engine.folder.other_parameter_files())
        text += f"; {engine.folder.parameter_file} was replaced"
        text += f", but the folder holds {others} too" if others else ""
        text += ": name the file that it reads with --parameter-file"
    else:
        text += "; see that the command reads {parameters}, or give the folder of your VISIT with --run-folder"
    return text


def _check_unit(engine: ProgramEngine, fluxes: np.ndarray, expected: float | None) -> None:
    """UserError when another unit of FLUX_UNITS explains the size of GPP, and the one that was said does not."""
    found = float(fluxes[:, 0].mean())
    if not expected or found <= 0 or 1 / BETWEEN < found / expected < BETWEEN:
        return
    factor, said = FLUX_UNITS[engine.output.unit]
    for name, (other, text) in FLUX_UNITS.items():
        if 1 / NEAR < found * other / factor / expected < NEAR:
            raise UserError(
                f"GPP of the trial run averages {found / factor:.3g}, which as {said} is {found / expected:.2g} times "
                f"what the process model has at this site, and as {text} fits: give --flux-unit {name}"
            )
