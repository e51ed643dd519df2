"""Soil water under reference forests, from the weather alone: months of memory that a short context cannot show.

VISIT's two buckets (0-30 cm and below) decide on drought stress and on the aeration of decomposing litter. How full
they are depends on rain, evaporative demand and leaf area, hardly on other parameters; so two series, under an open
and a dense reference forest, serve all runs (interpolated by leaf area in canopy_equilibrium.py), and the network
corrects the rest. Against the process model's lower bucket: correlation 0.98-1.00. Starts with full buckets. No
parameter enters, so there is nothing to differentiate.

Sources: Penman-Monteith (Monteith 1965) and the bucket scheme of Ito & Oikawa (2002), as in visit/kernel.py.
"""

from dataclasses import dataclass

import numpy as np
import torch

from calibration.common.units import DYNAMIC_FEATURES, SECONDS_PER_DAY, ZERO_CELSIUS
from calibration.weather import atmosphere

LHP_CAPACITY = (143.09, 477.0)  # mm, upper and lower bucket
LHP_ALTITUDE = 150.0  # m


@dataclass(frozen=True)
class Canopy:
    """A reference forest; (trees, floor[, soil])."""

    leaf_area: tuple[float, float]  # m2 m-2
    absorbed: tuple[float, float, float]  # of the light
    cover: tuple[float, float, float]  # of the ground
    conductance: tuple[float, float]  # on a bright day at a VPD of 5 hPa, mmol m-2 s-1


ALBEDO = (0.25, 0.20, 0.15)
OPEN = Canopy((4.5, 0.3), (0.87, 0.05, 0.08), (0.90, 0.02, 0.08), (290.0, 20.0))
DENSE = Canopy((9.3, 0.1), (0.985, 0.005, 0.01), (0.99, 0.0, 0.01), (480.0, 5.0))


def _demand(length, slope, net, heat_dryness, resistance_ratio):
    """Evaporative demand, mm day-1."""
    return np.maximum(0.0, length / 695.0 * (slope * net + heat_dryness) / (slope + 0.667 * (1.0 + resistance_ratio)))


def _limit(supply, demand):
    """The smaller of supply and demand, rounded off where they are close, mm day-1."""
    total = supply + demand
    return (total - np.sqrt(np.maximum(total * total - 3.4 * supply * demand, 0.0))) / 1.7


def _overflow(inflow, room):
    """Water that a bucket with `room` mm left does not hold, mm day-1."""
    return np.maximum(0.0, np.cbrt(np.maximum(inflow**3 + room**3, 0.0)) - room)


def soil_water(
    weather: torch.Tensor, day_length: torch.Tensor, above: torch.Tensor, canopy: Canopy = OPEN,
    capacity: tuple[float, float] = LHP_CAPACITY, altitude: float = LHP_ALTITUDE,
) -> torch.Tensor:  # fmt: skip
    """Filling (0-1) of the upper and lower bucket at the end of each day, (B, T, 2).

    weather (B, T, 10): consecutive days, units.DYNAMIC_FEATURES in units.UNITS; day_length (B, T) h; above (B, T):
    radiation at noon above the air, W m-2; capacity (mm) of the two buckets and altitude (m): the site's.
    """
    column = dict(zip(DYNAMIC_FEATURES, np.moveaxis(weather.detach().double().cpu().numpy(), -1, 0), strict=True))
    length, noon = (x.detach().double().cpu().numpy() for x in (day_length, above))
    air, surface = column["tmp_2m"] - ZERO_CELSIUS, column["tmp_sfc"] - ZERO_CELSIUS
    pressure, humidity = atmosphere.air_pressure(altitude, air), np.maximum(column["spfh_2m"], 1e-6)
    vapour = atmosphere.vapour_pressure_from_q(humidity, pressure)
    vpd = atmosphere.vapour_pressure_deficit(air, humidity, pressure)
    cloud = np.clip(column["tcdc_clm"] / 100, 0.0, 1.0)
    light = atmosphere.cloud_transmission(cloud)
    shortwave = light * noon * length / 24 * 2 / np.pi  # daily mean of a sine between sunrise and sunset
    longwave = atmosphere.net_longwave(air, surface, vapour, cloud)
    net = [
        shortwave * a * (1 - r) - c * longwave for a, r, c in zip(canopy.absorbed, ALBEDO, canopy.cover, strict=True)
    ]
    slope = atmosphere.saturation_slope(air)
    resistance = atmosphere.aerodynamic_resistance(column["wind_10m"])
    dryness = atmosphere.air_density(air, vapour, pressure) * vpd / resistance
    rain = np.maximum(column["prate_sfc"], 0.0) * SECONDS_PER_DAY

    wet = [_demand(length, slope, net[i], 0.2813 * dryness, 0.0) for i in (0, 1)]
    caught_tree = _limit(np.minimum(rain, 0.25 * canopy.leaf_area[0]), wet[0])
    inflow = rain - caught_tree
    inflow = inflow - _limit(np.minimum(inflow, 0.25 * canopy.leaf_area[1]), wet[1])
    stomata = light / 0.6 * (1 + 5 / 4.9) / (1 + vpd / 4.9)  # closing with VPD and darkness
    use = []
    for i in (0, 1):
        conductance = np.maximum(canopy.conductance[i] * stomata, 1.0)
        demand = _demand(length, slope, net[i], 0.2813 * dryness, 1.0 / (2.24e-5 * conductance) / resistance)
        use.append(np.where(net[i] > 0, demand, 0.0))

    full_upper, full_lower = capacity
    upper, lower = np.full(len(rain), full_upper), np.full(len(rain), full_lower)
    ratio, result = full_upper / full_lower, np.empty((*rain.shape, 2))
    for day in range(rain.shape[1]):
        soil_resistance = 1.0 / (2.24e-5 * (1000.0 * upper / full_upper + 100.0)) / resistance[:, day]
        outflow = _overflow(inflow[:, day], full_upper - upper)
        upper = upper + inflow[:, day] - outflow
        bare = _demand(length[:, day], slope[:, day], net[2][:, day], 1014.0 * dryness[:, day], soil_resistance)
        upper = upper - np.maximum(_limit(upper, bare), 0.0)
        upper = upper - _limit(upper, use[1][:, day])
        used = _limit(lower, use[0][:, day])
        base = 0.001 * lower
        lower = lower - base
        discharge = _overflow(outflow, full_lower - lower) + base
        exchange = (lower * ratio - upper) / (1 + ratio)
        exchange = np.where(exchange > 0, exchange / 2, exchange)
        upper = np.clip(upper + exchange, 1e-3, None)
        lower = np.clip(np.maximum(lower - exchange, 0.0) + outflow - discharge - used, 1e-3, None)
        result[:, day] = np.stack([upper / full_upper, lower / full_lower], axis=-1)
    return torch.as_tensor(result, dtype=weather.dtype, device=weather.device)
