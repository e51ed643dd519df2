"""What the network sees of the parameters: the scaled values and, by choice, features that carry the model's structure.

  none         the scaled parameters as they are
  ratios       + logarithms of multiplicative parameters, products and quotients that act together, temperature
  distances equilibrium  + the carbon cycle at rest under mean weather (canopy_equilibrium.py)

Made from names and ranges alone. Parameters that the catalogue does not know (any name, any number) count as they are;
catalogue parameters that an ensemble does not vary keep their baseline.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from canopy_equilibrium import LAYERS, PARAMETERS, equilibrium_features
from parameters import canonical_name, catalogue
from units import DYNAMIC_FEATURES, ZERO_CELSIUS

LITTER = ("lf", "lc", "lr")
LIMIT = 6.0  # features are cut at this many standard deviations: logarithms explode outside the trained ranges


def logarithmic_parameters(names: Sequence[str], values: np.ndarray) -> list[str]:
    """Names whose logarithm is worth having: positive, spread by a factor of 1.3 or more, no temperature or share.

    values: (run, parameter) physical, of the training runs.
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

    def __init__(self, parameter_names: Sequence[str], logarithmic: Sequence[str], kind: str) -> None:
        super().__init__()
        self.parameter_names, self.logarithmic, self.kind = list(parameter_names), list(logarithmic), kind
        self.canonical = [canonical_name(name) for name in self.parameter_names]
        width = len(self.parameter_names)
        self.register_buffer("parameter_mean", torch.zeros(width))
        self.register_buffer("parameter_scale", torch.ones(width))
        climate = dict.fromkeys(DYNAMIC_FEATURES, 0.0) | {
            "tmp_sfc": 300.7, "tmp_2m": 300.0, "tmp10_soil": 301.2, "tmp200_soil": 300.9, "tcdc_clm": 29.5,
            "spfh_2m": 0.0189, "a_co2": 408.0,
        }  # fmt: skip
        self.register_buffer("climate", torch.tensor([climate[name] for name in DYNAMIC_FEATURES]))
        self.names = list(self.parameter_names)
        if kind != "none":
            derived = self._derived(torch.zeros(1, width))
            self.names += list(derived)
            self.register_buffer("feature_mean", torch.zeros(len(derived)))
            self.register_buffer("feature_scale", torch.ones(len(derived)))

    def __len__(self) -> int:
        return len(self.names)

    @torch.no_grad()
    def fit(self, mean: np.ndarray, scale: np.ndarray, climate: np.ndarray | None, values: np.ndarray) -> None:
        """Take over the parameters' scaler, the mean weather (units.UNITS) and standardise on values (run,
        parameter).
        """
        self.parameter_mean.copy_(torch.as_tensor(mean))
        self.parameter_scale.copy_(torch.as_tensor(scale))
        if climate is not None:
            self.climate.copy_(torch.as_tensor(climate))
        if self.kind == "none":
            return
        scaled = (torch.as_tensor(values, dtype=torch.float32) - self.parameter_mean) / self.parameter_scale
        derived = torch.stack(list(self._derived(scaled).values()), dim=-1)
        spread = derived.std(dim=0, correction=0)
        self.feature_mean.copy_(derived.mean(dim=0))
        self.feature_scale.copy_(
            torch.where(spread > 1e-6 * derived.abs().mean(dim=0).clamp(min=1e-12), spread, torch.inf)
        )

    def forward(self, static_x: torch.Tensor) -> torch.Tensor:
        """static_x (B, parameter) scaled -> (B, feature) standardised."""
        if self.kind == "none":
            return static_x
        derived = torch.stack(list(self._derived(static_x).values()), dim=-1)
        return torch.cat([static_x, ((derived - self.feature_mean) / self.feature_scale).clamp(-LIMIT, LIMIT)], dim=-1)

    def _derived(self, static_x: torch.Tensor) -> dict[str, torch.Tensor]:
        physical = static_x * self.parameter_scale + self.parameter_mean
        given = dict(zip(self.parameter_names, physical.unbind(dim=-1), strict=True))
        features = {f"log_{name}": torch.log(given[name].clamp(min=1e-9)) for name in self.logarithmic}
        if not any(self.canonical):
            return features  # none of the parameters is known: nothing to derive from the model's structure
        baseline = torch.ones_like(static_x[..., 0])
        values = {name: baseline * parameter.baseline for name, parameter in catalogue().items()}
        values |= {
            known: given[name] for name, known in zip(self.parameter_names, self.canonical, strict=True) if known
        }
        features |= self._ratios(values)
        if self.kind == "equilibrium":
            # Outside the legal ranges the closed forms are not defined; the clamp only acts there.
            legal = {
                name: values[name].clamp(catalogue()[name].minimum + 1e-6, catalogue()[name].maximum) for name in _USED
            }
            features |= {f"rest_{name}": value for name, value in equilibrium_features(legal, self.climate).items()}
        return features

    def _ratios(self, p: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        surface = self.climate[0] - ZERO_CELSIUS
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


_USED = tuple(f"{layer}_{name}" for layer in LAYERS for name in PARAMETERS) + tuple(
    f"soil_{kind}_{pool}" for kind in ("f_co2", "sr") for pool in LITTER
)
