"""The process model in the emulator's place: the same call, its runs kept on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from calibration.common.command_line import UserError, read_json, write_json
from calibration.common.units import TARGETS
from calibration.inversion.data import Stretch, day_index
from calibration.judgement.simulator_check import ProcessModel

RUNS, SETTINGS = "runs.bin", "runs.json"


class KeptRuns:
    """Runs of a process model over some days, looked up by their parameters; in a folder, or in memory only.

    runs.bin holds one record a run, parameters (float64) and fluxes (day, 4) (float32, Mg C ha-1 day-1), appended as
    the run ends, so that an inversion that was interrupted repeats no run.
    """

    def __init__(
        self, model: ProcessModel, names: Sequence[str], first: np.datetime64, last: np.datetime64,
        directory: Path | None = None,
    ) -> None:  # fmt: skip
        self.model, self.names = model, tuple(names)
        start, stop = day_index(np.array([first, last]), model.weather.dates[0])
        self.days, self.first = slice(start, stop + 1), first
        self.record = np.dtype([
            ("parameters", "<f8", (len(self.names),)), ("fluxes", "<f4", (stop + 1 - start, len(TARGETS))),
        ])  # fmt: skip
        self.known: dict[bytes, np.ndarray] = {}
        self.asked: dict[bytes, np.ndarray] = {}  # parameters of those asked for by now, in order
        self.made = self.failed = 0
        self.path = None if directory is None else directory / RUNS
        self.on_run: Callable[[int], object] = lambda count: None
        if directory is not None:
            settings = {"parameters": ", ".join(self.names), "days": f"{first} to {last}", **model.identity}
            self._open(directory, settings)

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """parameters (run, parameter) physical -> fluxes (run, day, 4) float32, NaN where a run failed."""
        fluxes = np.full((len(parameters), *self.record["fluxes"].shape), np.nan, dtype=np.float32)
        keys = [_key(vector) for vector in parameters]
        missing = list({key: i for i, key in enumerate(keys) if key not in self.known}.values())
        if missing:
            failed = {keys[i] for i in missing}
            for i, flux in self.model.runs(parameters[missing]):
                if np.isfinite(flux[self.days]).all():
                    failed.discard(keys[missing[i]])
                    self._keep(parameters[missing[i]], flux[self.days].astype(np.float32))
                self.on_run(1)
            self.failed += len(failed)
        for i, key in enumerate(keys):
            if key in self.known:
                fluxes[i] = self.known[key]
                self.asked.setdefault(key, parameters[i].copy())
        return fluxes

    def tally(self) -> str:
        """How many runs there were, in words."""
        before, failed = len(self.known) - self.made, f", {self.failed} failed" if self.failed else ""
        return f"{self.made} made{f', {before} kept from before' if before else ''}{failed}"

    def _keep(self, vector: np.ndarray, flux: np.ndarray) -> None:
        self.known[_key(vector)] = flux
        self.made += 1
        if self.path is not None:
            with self.path.open("ab") as handle:
                handle.write(np.array([(vector, flux)], dtype=self.record).tobytes())

    def _open(self, directory: Path, settings: dict[str, str]) -> None:
        """Read what an earlier inversion kept. UserError where its runs are of another model, weather or days."""
        directory.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            before = read_json(directory / SETTINGS) if (directory / SETTINGS).is_file() else {}
            different = [key for key in settings if before.get(key) != settings[key]]
            if different:
                raise UserError(
                    f"{directory}: holds runs of the process model with other {different[0]} than now; remove that "
                    "folder or give another --result-dir"
                )
            whole = self.path.stat().st_size // self.record.itemsize
            # Half a record is what an interruption left: the next one must not be appended to it.
            with self.path.open("r+b") as handle:
                handle.truncate(whole * self.record.itemsize)
            for vector, flux in np.fromfile(self.path, dtype=self.record):
                self.known[_key(vector)] = flux
        write_json(directory / SETTINGS, settings)


def _key(vector: np.ndarray) -> bytes:
    """Ten digits of a vector: the last ones of a repeated inversion may differ."""
    return ",".join(f"{value:.10g}" for value in vector).encode()


class ProcessForward:
    """inversion.problem.Forward with the process model: physical parameters -> fluxes of every day."""

    bias = None

    def __init__(self, runs: KeptRuns, stretches: Sequence[Stretch]) -> None:
        self.runs, self.stretches = runs, list(stretches)
        self.index = [torch.as_tensor(day_index(stretch.dates, runs.first)) for stretch in self.stretches]

    def __call__(self, physical: torch.Tensor) -> list[torch.Tensor]:
        """physical (batch, parameter) -> a list over stretches of (batch, day, 4) Mg C ha-1 day-1, float64."""
        fluxes = torch.as_tensor(self.runs(physical.detach().numpy())).to(torch.float64)
        return [fluxes[:, index] for index in self.index]
