"""What the network sees of the parameters: the scaled values and, by choice, features that carry the model's structure.

  none         the scaled parameters as they are
  ratios       + logarithms of multiplicative parameters, products and quotients that act together, temperature
               distances
  equilibrium  + the carbon cycle at rest under mean weather (network/canopy_equilibrium.py)
  regression   the scaled parameters and a run's mean fluxes by Gaussian processes (run_means.py), which need no names

Made from names and ranges alone. Parameters that the catalogue does not know (any name, any number) count as they are;
catalogue parameters that an ensemble does not vary keep their baseline.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from calibration.common.parameters import canonical_name, catalogue
from calibration.common.units import DYNAMIC_FEATURES, ZERO_CELSIUS
from calibration.network.canopy_equilibrium import LAYERS, PARAMETERS, at_rest, first_guess
from calibration.network.leaf_weather import LHP_PRESSURE, Days, read_days
from calibration.network.options import NetworkOptions
from calibration.network.run_means import RUN_MEANS, RunMeans
from calibration.weather.atmosphere import air_pressure

LITTER = ("lf", "lc", "lr")
TYPICAL_DAYS = 96  # of the training weather, from clear to overcast, behind the carbon cycle at rest
LHP_DAY = torch.tensor([[300.7, 300.0, 301.2, 300.9, 214.0, 29.5, 9e-5, 0.0189, 1.25, 408.0]])  # until fit() is called
LIMIT = 6.0  # features are cut at this many standard deviations: logarithms explode outside the trained ranges


def logarithmic_parameters(names: Sequence[str], values: np.ndarray) -> list[str]:
    """Names whose logarithm is worth having: positive, spread by a factor of 1.3 or more, no temperature or share.

    values: (run, parameter) physical, of the training runs.

    >>> logarithmic_parameters(["tree_pmax", "tree_topt"], np.array([[10.0, 20.0], [20.0, 30.0]]))
    ['tree_pmax']
    """
    chosen = []
    for name, column in zip(names, np.asarray(values).T, strict=True):
        known = catalogue().get(canonical_name(name) or "")
        additive = known is not None and (known.unit == "deg C" or "f_co2" in name or "alloc" in name)
        if not additive and column.min() > 0 and column.max() / column.min() > 1.3:
            chosen.append(name)
    return chosen


class StaticFeatures(nn.Module):
    """Scaled parameters (B, parameter) -> standardised features (B, feature), differentiable."""

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.parameter_names, self.logarithmic = options.parameter_names, options.logarithmic
        self.kind = options.static_features
        self.canonical = [canonical_name(name) for name in self.parameter_names]
        width = len(self.parameter_names)
        self.register_buffer("parameter_mean", torch.zeros(width))
        self.register_buffer("parameter_scale", torch.ones(width))
        self.register_buffer("typical", LHP_DAY.repeat(TYPICAL_DAYS, 1))  # (day, 10) weather, units.UNITS
        wet = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
        self.register_buffer("typical_extra", wet.repeat(TYPICAL_DAYS, 1))  # season and soil water, see read_days()
        self.register_buffer("latitude", torch.tensor(4.2))  # degrees
        self.register_buffer("pressure", torch.tensor(LHP_PRESSURE))  # hPa, of the air
        self.names = list(self.parameter_names)
        self.means = RunMeans(width, options.regression_runs) if self.kind == "regression" else None
        if self.means is not None:
            self.names += [f"mean_{name}" for name in RUN_MEANS]
        elif self.kind != "none":
            derived, _ = self._derived(torch.zeros(1, width))
            self.names += list(derived)
            self.register_buffer("feature_mean", torch.zeros(len(derived)))
            self.register_buffer("feature_scale", torch.ones(len(derived)))

    def __len__(self) -> int:
        return len(self.names)

    @torch.no_grad()
    def set_place(self, latitude: float, altitude: float) -> None:
        """Latitude in degrees and altitude in m of the site."""
        self.latitude.fill_(latitude)
        self.pressure.fill_(float(air_pressure(altitude, 27.0)))

    @torch.no_grad()
    def fit(
        self, mean: np.ndarray, scale: np.ndarray, values: np.ndarray, weather: np.ndarray | None = None,
        extra: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Take over the parameters' scaler (P,), typical weather and the features' spread.

        values (run, P): physical parameters of the training runs; weather (day, 10) of the training period in
        units.UNITS, from which days from clear to overcast are picked, with their extra columns
        (day, 6; see read_days()). None keeps what is there.
        """
        self.parameter_mean.copy_(torch.as_tensor(mean))
        self.parameter_scale.copy_(torch.as_tensor(scale))
        if weather is not None:
            order = np.argsort(np.asarray(weather)[:, DYNAMIC_FEATURES.index("tcdc_clm")], kind="stable")
            strata = ((np.arange(TYPICAL_DAYS) + 0.5) * len(order) / TYPICAL_DAYS).astype(int)
            self.typical.copy_(torch.as_tensor(np.asarray(weather)[order[strata]]))
            if extra is not None:
                self.typical_extra.copy_(torch.as_tensor(np.asarray(extra)[order[strata]]))
        if self.kind in ("none", "regression"):
            return
        scaled = torch.as_tensor(values, dtype=torch.float32, device=self.typical.device) - self.parameter_mean
        derived = torch.stack(list(self._derived(scaled / self.parameter_scale)[0].values()), dim=-1)
        spread = derived.std(dim=0, correction=0)
        enough = spread > 1e-6 * derived.abs().mean(dim=0).clamp(min=1e-12)
        self.feature_mean.copy_(derived.mean(dim=0))
        self.feature_scale.copy_(torch.where(enough, spread, torch.inf))  # a constant feature becomes 0

    def forward(self, static_x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """static_x (B, P) scaled -> standardised features (B, feature), and what guess() needs (B, n; n = 0
        without).
        """
        if self.kind == "none":
            return static_x, static_x[:, :0]
        if self.means is not None:
            means = self.means(static_x)
            return torch.cat([static_x, means], dim=-1), means
        features, packed = self._derived(static_x)
        derived = torch.stack(list(features.values()), dim=-1)
        scaled = ((derived - self.feature_mean) / self.feature_scale).clamp(-LIMIT, LIMIT)
        return torch.cat([static_x, scaled], dim=-1), packed

    def typical_days(self) -> Days:
        """The typical days (1, TYPICAL_DAYS)."""
        return read_days(self.typical[None], self.typical_extra[None], self.latitude, self.pressure)

    def guess(self, packed: torch.Tensor, weather: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        """First guess (B, T, 6), Mg C ha-1 day-1; weather (B or 1, T, 10) in units.UNITS, extra (B or 1, T, 6)."""
        return first_guess(packed, read_days(weather, extra, self.latitude, self.pressure), self.typical_days())

    def _derived(self, static_x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        physical = static_x * self.parameter_scale + self.parameter_mean
        given = dict(zip(self.parameter_names, physical.unbind(dim=-1), strict=True))
        features = {f"log_{name}": torch.log(given[name].clamp(min=1e-9)) for name in self.logarithmic}
        baseline = torch.ones_like(static_x[..., 0])
        values = {name: baseline * parameter.baseline for name, parameter in catalogue().items()}
        values |= {
            known: given[name] for name, known in zip(self.parameter_names, self.canonical, strict=True) if known
        }
        features |= self._ratios(values)
        packed = static_x[:, :0]
        if self.kind == "equilibrium":
            # Outside the legal ranges the closed forms are not defined; the clamp only acts there.
            legal = {
                name: values[name].clamp(catalogue()[name].minimum + 1e-6, catalogue()[name].maximum)[:, None]
                for name in PARAMETERS
            }
            packed, rest = at_rest(legal, self.typical_days())
            features |= {f"rest_{name}": value for name, value in rest.items()}
        return features, packed

    def _ratios(self, p: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        surface = self.typical[:, 0].mean() - ZERO_CELSIUS
        features = {}
        for layer in LAYERS:
            v = {
                name: p[f"{layer}_{name}"].clamp(min=1e-9)
                for name in ("pmax", "sla", "lf0", "lue", "rmf0", "alloc_abg")
            }
            features |= {
                f"{layer}_pmax_sla": torch.log(v["pmax"] * v["sla"]),
                f"{layer}_sla_lf0": torch.log(v["sla"] / v["lf0"]),
                f"{layer}_lue_pmax": torch.log(v["lue"] * v["pmax"]),
                f"{layer}_lue_over_pmax": torch.log(v["lue"] / v["pmax"]),
                f"{layer}_upkeep": torch.log(v["rmf0"] / (v["pmax"] * v["sla"])),
                f"{layer}_stem_sla_lf0": torch.log(v["alloc_abg"] * v["sla"] / v["lf0"]),
                f"{layer}_optimum": (p[f"{layer}_topt"] - surface) ** 2,
                f"{layer}_above": p[f"{layer}_tmax"] - p[f"{layer}_topt"],
                f"{layer}_below": p[f"{layer}_topt"] - p[f"{layer}_tmin"],
            }
        for pool in LITTER:
            rate = torch.log(p[f"soil_sr_{pool}"].clamp(min=1e-9))
            features[f"respired_rate_{pool}"] = p[f"soil_f_co2_{pool}"] * rate
        return features
