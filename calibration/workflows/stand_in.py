"""What stands in for the process model between its runs: VISIT's closed forms, corrected by every run made so far.

A run of the process model costs some 100 ms of one core, and an inversion asks for thousands. The closed forms
(network/canopy_equilibrium.py) know most of what a run says, from names and weather alone; what they leave is small and
smooth in the parameters, so that a Gaussian process over some hundred runs tells it elsewhere (kriging of a simulator
with a trend: Sacks et al. 1989; Kennedy and O'Hagan 2001).
"""

from collections.abc import Sequence

import numpy as np
import torch

from calibration.common.parameters import ParameterSpace, canonical_name, catalogue
from calibration.common.scalers import Scaler
from calibration.common.units import DYNAMIC_FEATURES, TARGETS
from calibration.inversion.data import OBSERVABLE, Stretch, day_index
from calibration.inversion.problem import Forward
from calibration.workflows.process_forward import KeptRuns
from model import create_model

# Kernel over parameters in units in which two draws of the prior lie about 1.4 apart: a smooth part, and a rough one of
# less weight, by which a place that was run is hit nearly exactly and one far away is not.
SMOOTH, ROUGH, ROUGH_SHARE = 2.0, 0.2, 0.3
TRENDS = (0.01, 1.0, 100.0)  # variance of a linear part; the closed forms leave little of one, another model's all
JITTER = 1e-5
MOST_RUNS = 1000  # behind the correction: the newest
COLUMNS = 400  # days and fluxes by which the trend is chosen, at most


class StandIn:
    """inversion.problem.Forward without runs: physical parameters -> fluxes of every day of `stretches`.

    free: how many parameters vary. learn() takes in the runs that were made since.
    """

    bias = None

    def __init__(self, runs: KeptRuns, stretches: Sequence[Stretch], space: ParameterSpace, free: int) -> None:
        self.runs, self.stretches = runs, list(stretches)
        days = [day_index(stretch.dates, runs.first) for stretch in self.stretches]
        self.days, self.cuts = np.concatenate(days), np.cumsum([len(index) for index in days])[:-1]
        self.middle = space.unit_to_physical(np.full(len(space), 0.5))
        # of a uniform range; a parameter that is fixed has no width and stays where it is
        self.spread = np.where(space.width > 0, space.width, 1.0) / np.sqrt(12.0)
        self.unit = self.spread * np.sqrt(max(free, 1))
        self.closed = closed_forms(runs, space, self.middle, self.spread)
        self.places = np.empty((0, len(space)))
        self.guesses: dict[bytes, np.ndarray] = {}  # closed forms (day, 4) of the runs, made once
        self.learn()

    def __call__(self, physical: torch.Tensor) -> list[torch.Tensor]:
        """physical (batch, parameter) -> a list over stretches of (batch, day, 4) Mg C ha-1 day-1, float64."""
        values = physical.detach().numpy()
        fluxes = self._closed(values)
        if len(self.places):
            nearness = self._kernel(self._scaled(values), self.places, self.trend)
            fluxes = fluxes + (self.mean + nearness @ self.weights).reshape(fluxes.shape)
        return [torch.as_tensor(part) for part in np.split(fluxes, self.cuts, axis=1)]

    def learn(self) -> None:
        """Fit the correction to the runs so far, the variance of its linear part by leaving out one run after the
        other (Rasmussen and Williams 2006, eq. 5.12).
        """
        keys = list(self.runs.asked)[-MOST_RUNS:]
        if not keys:
            return
        # Runs kept from before count where they are asked for again: an inversion taken up again goes the same way.
        values = np.array([self.runs.asked[key] for key in keys])
        new = [i for i, key in enumerate(keys) if key not in self.guesses]
        for i, guess in zip(new, self._closed(values[new]), strict=True):
            self.guesses[keys[i]] = guess
        left = np.stack([self.runs.known[key][self.days] - self.guesses[key] for key in keys]).reshape(len(keys), -1)
        self.places, self.mean = self._scaled(values), left.mean(axis=0)
        left = left - self.mean
        some = left[:, :: -(-left.shape[1] // COLUMNS)]
        best = np.inf
        for trend in TRENDS:
            matrix = self._kernel(self.places, self.places, trend) + JITTER * np.eye(len(keys))
            inverse = np.linalg.inv(matrix)
            # the median over runs: a forest that dies must not decide for the others
            error = np.median(np.mean((inverse @ some / np.diag(inverse)[:, None]) ** 2, axis=1))
            if error < best:
                best, self.trend, self.weights = error, trend, inverse @ left

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return (values - self.middle) / self.unit

    def _closed(self, values: np.ndarray) -> np.ndarray:
        """values (batch, parameter) physical -> closed forms' fluxes (batch, day, 4), 0 where there are none."""
        if self.closed is None or not len(values):
            return np.zeros((len(values), len(self.days), len(TARGETS)))
        with torch.no_grad():
            return self.closed(torch.as_tensor(values))[0].numpy()[:, self.days]

    @staticmethod
    def _kernel(one: np.ndarray, other: np.ndarray, trend: float) -> np.ndarray:
        """Covariances (a, b) of places (a, parameter) and (b, parameter), scaled."""
        inner = one @ other.T
        squared = np.maximum(np.sum(one**2, axis=1)[:, None] + np.sum(other**2, axis=1) - 2 * inner, 0.0)
        rough = ROUGH_SHARE * np.exp(-squared / (2 * ROUGH**2))
        return np.exp(-squared / (2 * SMOOTH**2)) + rough + trend * (1 + inner)


def unknown_parameters(names: Sequence[str]) -> list[str]:
    """Names that the closed forms know nothing of."""
    return [name for name in names if canonical_name(name) not in catalogue()]


def closed_forms(runs: KeptRuns, space: ParameterSpace, mean: np.ndarray, spread: np.ndarray) -> Forward | None:
    """The closed forms over the days of `runs` as one stretch; None where they know none of the parameters.

    They are the first guess of a network that has learned nothing yet. mean, spread: (parameter,) physical.
    """
    if len(unknown_parameters(space.names)) == len(space):
        return None
    weather = runs.model.weather
    dynamic = Scaler(DYNAMIC_FEATURES, weather.values.mean(axis=0), weather.values.std(axis=0) + 1e-9)
    network = create_model(
        dynamic_dim=len(DYNAMIC_FEATURES), static_dim=len(space), hidden_size=1, num_layers=1, dropout=0.0,
        init_state=False, concat_input=False, head_width=0, flux_feedback=False, static_features="equilibrium",
        first_guess=True, dated=True, parameter_names=space.names,
    ).eval()  # fmt: skip
    network.set_scaling(
        Scaler(TARGETS, np.zeros(len(TARGETS)), np.ones(len(TARGETS))), dynamic, Scaler(space.names, mean, spread),
        mean[None], weather.values, runs.model.site, weather.dates,
    )  # fmt: skip
    start, days = runs.days.start, runs.days.stop - runs.days.start
    nothing = np.full((days, len(OBSERVABLE)), np.nan)
    stretch = Stretch(
        dynamic.transform(weather.values[: runs.days.stop]), start, nothing, np.isfinite(nothing), nothing,
        weather.dates[runs.days],
    )  # fmt: skip
    return Forward(network, mean, spread, [stretch], memory_days=0)
