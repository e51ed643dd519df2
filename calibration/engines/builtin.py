"""Engines of run_perturbations.py: what turns parameter values into daily fluxes.

  builtin   the process model of this repository (visit_simulator.py), several runs in one call: here
  command   the user's own VISIT, one run a call, in a private working directory: command.py

An engine is sent to worker processes, returns every run's result or the reason why there is none, and never writes
into the ensemble's folder: that is the parent's job, so workers need not share a disk with it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.common.command_line import UserError
from calibration.common.sites import Site
from calibration.weather.daily import Weather
from calibration.weather.daily_text import round_as_written


@dataclass(frozen=True)
class RunResult:
    """One run: fluxes (day, 4) float64 GPP NPP NEP Rh in Mg C ha-1 day-1, or None and a message that says why."""

    sample_id: int
    fluxes: np.ndarray | None
    seconds: float
    message: str = ""
    text: bytes | None = None  # the daily file as the user's VISIT wrote it
    log: bytes = b""


@dataclass(frozen=True)
class BuiltinEngine:
    """visit_simulator.simulate over the whole `weather`; of the result the days start to end are kept."""

    weather: Weather
    site: Site
    spinup: str  # fast | full
    start: np.datetime64
    end: np.datetime64
    batch: int = 8  # most runs a call

    def run(self, sample_ids: Sequence[int], values: Mapping[str, np.ndarray]) -> list[RunResult]:
        """Results of `sample_ids` with parameters name -> (run,) in physical units."""
        from calibration.visit.simulator import simulate  # compiled code: only workers that run it should load it

        begin = time.perf_counter()
        first = int((self.start - self.weather.dates[0]).astype(int))
        days = slice(first, int((self.end - self.weather.dates[0]).astype(int)) + 1)
        try:
            result = simulate(values, self.weather, self.site, spinup=self.spinup, jobs=1)
        except (ArithmeticError, ValueError, UserError) as error:
            if len(sample_ids) == 1:
                return [RunResult(sample_ids[0], None, time.perf_counter() - begin, f"{error}")]
            # one of them is to blame: the others must not suffer
            single = [({name: column[[i]] for name, column in values.items()}) for i in range(len(sample_ids))]
            return [self.run([sample], value)[0] for sample, value in zip(sample_ids, single, strict=True)]
        seconds = (time.perf_counter() - begin) / len(sample_ids)
        fluxes = np.stack([result.gpp, result.npp, result.nep], axis=2)[:, days]
        fluxes = round_as_written(fluxes)
        fluxes = np.concatenate([fluxes, (fluxes[..., 1] - fluxes[..., 2])[..., None]], axis=2)
        return [
            RunResult(sample, run, seconds)
            if np.isfinite(run).all()
            else RunResult(sample, None, seconds, "the fluxes are not finite with these parameters")
            for sample, run in zip(sample_ids, fluxes, strict=True)
        ]


def as_columns(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """name -> (run,) from values (run, parameter)."""
    return {name: values[:, i] for i, name in enumerate(names)}
