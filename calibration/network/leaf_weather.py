"""A day's weather as the closed forms need it: what a leaf, a root and the soil feel of the emulator's ten inputs."""

from dataclasses import dataclass

import torch

from calibration.common.units import DYNAMIC_FEATURES, ZERO_CELSIUS
from calibration.network.season import sun

LHP_PRESSURE = 996.0  # hPa


@dataclass
class Days:
    """Weather of n days, each (1 or B, n): temperatures in deg C, vpd in hPa, co2 in ppm, light in umol m-2 s-1."""

    surface: torch.Tensor
    soil: torch.Tensor
    deep: torch.Tensor
    vpd: torch.Tensor
    co2: torch.Tensor
    light: torch.Tensor  # noon photons for the canopy
    top_light: torch.Tensor  # noon photons for the top leaf
    length: torch.Tensor  # h
    height: torch.Tensor  # sine of the sun's height at noon
    water: torch.Tensor  # (..., 2, 2) filling of the buckets 0-1: reference forest (open, dense), bucket (upper, lower)


def read_days(
    weather: torch.Tensor, extra: torch.Tensor, latitude: torch.Tensor, pressure: float | torch.Tensor = LHP_PRESSURE
) -> Days:
    """weather (..., 10), units.DYNAMIC_FEATURES in units.UNITS; extra (..., 6): season (see sun()), then the filling of
    upper and lower bucket under the open and the dense forest (soil_water.py); air pressure in hPa -> Days (...)."""
    season, water = extra[..., :2], extra[..., 2:].unflatten(-1, (2, 2))
    column = {name: weather[..., i] for i, name in enumerate(DYNAMIC_FEATURES)}
    surface, air, soil, deep = (column[name] - ZERO_CELSIUS for name in DYNAMIC_FEATURES[:4])
    humidity = column["spfh_2m"]
    vapour = pressure * humidity / (0.622 + 0.378 * humidity)
    warm, cold = air.clamp(min=0.0), air.clamp(-200.0, 0.0)  # over water, over ice
    exponent = torch.where(air > 0, 7.5 * warm / (237.3 + warm), 9.5 * cold / (265.3 + cold))
    vpd = (6.1078 * 10**exponent - vapour).clamp(min=0.0)
    cloud = (column["tcdc_clm"] / 100).clamp(0.0, 1.0)
    transmission = (0.803 - 0.34 * cloud - 0.458 * cloud**2).clamp(0.0, 1.0)
    length, height, above = sun(season, latitude)
    shortwave = transmission * above
    diffuse = 0.958 - 0.982 * transmission
    beam_par, diffuse_par = 0.43 * shortwave * (1 - diffuse), 0.57 * shortwave * diffuse
    leaf_diffuse = diffuse.clamp(min=0.01)
    top = (4.576 - 0.033144 * leaf_diffuse) * beam_par
    top = top + (4.5886 * leaf_diffuse / (0.010773 + leaf_diffuse)).clamp(min=4.2) * diffuse_par
    return Days(
        surface, soil, deep, vpd, column["a_co2"], 4.6 * beam_par + 4.2 * diffuse_par, top, length, height, water
    )
