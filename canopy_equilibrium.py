"""VISIT's carbon cycle at rest under mean weather, in closed form: features that tell the emulator where a run will
settle.

The static side of the emulator has to learn how 36 parameters set a forest's mean fluxes from a few hundred examples.
Most of that is known: leaf area follows Kuroiwa's optimum, canopy photosynthesis has a closed form, and at steady state
stem and root grow as much as they lose. These estimates (a few percent off, since weather is replaced by its mean) are
given to the network as inputs; what they miss is learned. Everything is differentiable, as an inversion needs.

Sources: Kuroiwa (1966) and Monsi & Saeki (1953) for the canopy; Leuning (1995) for stomata; Raich et al. (1991) for the
temperature response; Ito & Oikawa (2002, Ecological Modelling 151, 143-176) for the model as a whole.
"""

import torch

from units import DYNAMIC_FEATURES, ZERO_CELSIUS

DAY_LENGTH = 12.1  # h
NOON_TOP_OF_ATMOSPHERE = 1330.0  # W m-2, near the equator; elsewhere a constant factor that the network absorbs
UMOL_HOURS_TO_MG_HA = 4.32e-4  # umol m-2 s-1 during 1 h -> Mg C ha-1
WET_SOIL = 0.8  # lower bucket, share of capacity
PARAMETERS = (
    "alloc_ass", "alloc_abg", "sla", "ek0", "lue", "pmax", "topt", "tmin", "tmax", "gs_b0", "gs_b1", "gs_b2",
    "km_nstl", "kmci", "cmpcd0", "rgf", "rgc", "rgr", "rmf0", "rmc_s", "rmr_s", "rmc_h", "rmr_h", "qTf0", "qTc0",
    "qTr0", "f_sz_s", "f_sz_r", "lf0", "lc0", "lr0",
)  # fmt: skip
LAYERS = ("tree", "c3")
CLOUD_STATES = (1.0, 0.25)  # of the mean cloud: leaf area follows the bright days, photosynthesis the mean day


def _noon_light(cloud):
    """Noon PAR photons for the canopy and for the top leaf, umol m-2 s-1, from cloud cover (0-1)."""
    transmission = (0.803 - 0.34 * cloud - 0.458 * cloud**2).clamp(0.0, 1.0)
    shortwave = transmission * NOON_TOP_OF_ATMOSPHERE
    diffuse = 0.958 - 0.982 * transmission
    beam_par, diffuse_par = 0.43 * shortwave * (1 - diffuse), 0.57 * shortwave * diffuse
    top = (4.576 - 0.033144 * diffuse) * beam_par + (4.5886 * diffuse / (0.010773 + diffuse)).clamp(
        min=4.2
    ) * diffuse_par
    return 4.6 * beam_par + 4.2 * diffuse_par, top


def _leaf(p, surface, vpd, co2, light):
    """Light-saturated rate (umol m-2 s-1) and quantum yield after VISIT's six passes for intercellular CO2."""
    inside = 0.7 * co2
    compensation = p["cmpcd0"] * (1 + 0.0451 * (surface - 20) + 0.000347 * (surface - 20) ** 2)
    water = 0.05 + 0.95 * WET_SOIL / (WET_SOIL + p["km_nstl"])
    for _ in range(6):
        yield_ = p["lue"] * (52 - surface) / (3.5 + 0.75 * (52 - surface)) * inside / (90 + 0.6 * inside)
        hot_cold = (surface - p["tmax"]) * (surface - p["tmin"])
        heat = (hot_cold / (hot_cold - (surface - p["topt"] - 0.01 * inside) ** 2)).clamp(0.0, 1.0)
        carbon = (0.30 + 0.70 * (inside - compensation) / (p["kmci"] + inside)).clamp(0.0, 1.0)
        saturated = (p["pmax"] * heat * carbon * water).clamp(min=1e-3)
        rate = saturated * yield_ * light / (saturated + yield_ * light)
        conductance = p["gs_b0"] + p["gs_b1"] * rate / ((co2 - compensation) * (1 + vpd / p["gs_b2"]))
        inside = torch.minimum((co2 - 1560 * rate / conductance).clamp(min=1.0), co2)
    return saturated, yield_


def _target_leaf_area(p, saturated, yield_, light, extinction, stem_q10):
    """Kuroiwa's optimal leaf area, m2 m-2."""
    cost = 22000 / p["sla"] * (p["rmf0"] / 1000 * stem_q10 + p["lf0"] * (1 + p["rgf"]))
    gain = saturated * DAY_LENGTH
    break_even = saturated * (gain / (gain - 24 * cost).clamp(min=0.02) - 1)
    return torch.log((extinction * yield_ * light / break_even.clamp(min=1e-6)).clamp(min=1.02)) / extinction


def _canopy_photosynthesis(saturated, yield_, light, extinction, leaf_area):
    """Daily canopy photosynthesis, Mg C ha-1 day-1: Beer's law, hyperbolic leaves, sin^2 course of the day."""
    b = extinction * yield_ * light / saturated
    depth = (1 + torch.sqrt(1 + b)) / (1 + torch.sqrt(1 + b * torch.exp(-extinction * leaf_area)))
    return 2 * saturated / extinction * torch.log(depth) * DAY_LENGTH * UMOL_HOURS_TO_MG_HA


def _maintenance_at_rest(surplus, p, foliage_share, stem_q10, root_q10):
    """Stem and root carbon (Mg C ha-1) that a daily surplus sustains, and their maintenance (Mg C ha-1 day-1)."""
    wood = (1 - foliage_share) * surplus
    stem = ((1 - p["rgc"]) * p["alloc_abg"] * wood / p["lc0"]).clamp(min=1e-3)
    root = ((1 - p["rgr"]) * (1 - p["alloc_abg"]) * wood / p["lr0"]).clamp(min=1e-3)
    sapwood = torch.minimum(stem ** (1 - 0.33334 * stem / (p["f_sz_s"] + stem)), stem)
    fine = torch.minimum(root ** (1 - 0.33334 * root / (p["f_sz_r"] + root)), root)
    upkeep = (p["rmc_s"] * sapwood + p["rmc_h"] * (stem - sapwood)) / 1000 * stem_q10
    upkeep = upkeep + (p["rmr_s"] * fine + p["rmr_h"] * (root - fine)) / 1000 * root_q10
    return stem, root, upkeep


def _layer(p, weather, light, light_above, bright, bright_above):
    """One layer at rest. light, bright: photons above the canopy on the mean and on the bright day; `_above`: top
    leaf.
    """
    surface, soil, vpd, co2 = weather
    q10 = {x: p[f"qT{x}0"] * torch.exp(-0.009 * (surface - 15)) for x in "fcr"}
    leaf_q10, stem_q10 = (q10[x] ** ((surface - 15) / 10) for x in "fc")
    root_q10 = q10["r"] ** ((soil - 15) / 10)
    extinction = p["ek0"]
    bright_leaf = _leaf(p, surface, vpd, co2, bright_above)
    leaf_area = _target_leaf_area(p, *bright_leaf, bright, extinction, stem_q10)
    saturated, yield_ = _leaf(p, surface, vpd, co2, light_above)
    mean_target = _target_leaf_area(p, saturated, yield_, light, extinction, stem_q10)
    gpp = _canopy_photosynthesis(saturated, yield_, light, extinction, leaf_area)
    foliage = leaf_area / (p["sla"] * 2.2 / 200)
    leaf_upkeep = foliage * p["rmf0"] / 1000 * leaf_q10
    leaf_growth = p["lf0"] * foliage / (1 - p["rgf"])  # surplus that replaces the shed leaves
    # Surplus Y solves Y = GPP - leaf upkeep - upkeep of the wood that Y sustains. The right side falls with Y, so
    # Newton's steps from half the GPP converge; the slope is a difference quotient and needs no gradient of its own.
    surplus = 0.5 * gpp
    for _ in range(8):

        def excess(y):
            share = (leaf_growth / y).clamp(0.0, 0.6)
            return gpp - leaf_upkeep - _maintenance_at_rest(y, p, share, stem_q10, root_q10)[2] - y

        with torch.no_grad():
            slope = (excess(surplus * 1.01) - excess(surplus)) / (0.01 * surplus)
            slope = slope.clamp(max=-0.5)
        surplus = torch.maximum(surplus - excess(surplus) / slope, 0.02 * gpp)
    share = (leaf_growth / surplus).clamp(0.0, 0.6)
    stem, root, wood_upkeep = _maintenance_at_rest(surplus, p, share, stem_q10, root_q10)
    growth = surplus * (p["rgf"] * share + (1 - share) * (p["rgc"] * p["alloc_abg"] + p["rgr"] * (1 - p["alloc_abg"])))
    litter = {"lf": p["lf0"] * foliage, "lc": p["lc0"] * stem, "lr": p["lr0"] * root}
    features = {
        "leaf_area": leaf_area, "mean_target": mean_target, "saturated": saturated, "yield": yield_, "gpp": gpp,
        "npp": surplus - growth, "log_gpp": torch.log(gpp), "leaf_upkeep": leaf_upkeep, "wood_upkeep": wood_upkeep,
        "growth": growth, "log_stem": torch.log(stem), "log_root": torch.log(root), "log_foliage": torch.log(foliage),
        "leaf_litter": litter["lf"], "stem_litter": litter["lc"], "root_litter": litter["lr"],
    }  # fmt: skip
    return features, litter, leaf_area


def equilibrium_features(parameters: dict[str, torch.Tensor], climate: torch.Tensor) -> dict[str, torch.Tensor]:
    """Features (B,) by name from physical parameters (B,) by full catalogue name; all of PARAMETERS must be there.

    climate (10,): mean of units.DYNAMIC_FEATURES in units.UNITS. Fluxes are Mg C ha-1 day-1, pools Mg C ha-1.
    """
    mean = dict(zip(DYNAMIC_FEATURES, climate, strict=True))
    surface, air, soil = (mean[name] - ZERO_CELSIUS for name in ("tmp_sfc", "tmp_2m", "tmp10_soil"))
    pressure = 1000.0  # hPa
    vapour = pressure * mean["spfh_2m"] / (0.622 + 0.378 * mean["spfh_2m"])
    vpd = (6.1078 * 10 ** (7.5 * air / (237.3 + air)) - vapour).clamp(min=0.5)
    weather = (surface, soil, vpd, mean["a_co2"])
    (light, above), (bright, bright_above) = (_noon_light(state * mean["tcdc_clm"] / 100) for state in CLOUD_STATES)
    features: dict[str, torch.Tensor] = {}
    inputs = dict.fromkeys(("lf", "lc", "lr"), 0.0)
    for layer in LAYERS:
        p = {name: parameters[f"{layer}_{name}"] for name in PARAMETERS}
        rest, litter, leaf_area = _layer(p, weather, light, above, bright, bright_above)
        features |= {f"{layer}_{name}": value for name, value in rest.items()}
        inputs = {pool: inputs[pool] + litter[pool] for pool in inputs}
        shade = torch.exp(-0.9 * p["ek0"] * leaf_area)  # light that the trees leave to the floor
        light, bright = light * shade, bright * shade
    features |= {name: features[f"tree_{name}"] + features[f"c3_{name}"] for name in ("gpp", "npp")}
    # Heterotrophic respiration: what litter respires itself, and what it hands on to humus, which respires it later.
    for pool, amount in inputs.items():
        features[f"respired_{pool}"] = parameters[f"soil_f_co2_{pool}"] * amount
        features[f"stock_{pool}"] = torch.log(amount / parameters[f"soil_sr_{pool}"])
    features["respired"] = sum(features[f"respired_{pool}"] for pool in inputs)
    features["humified"] = sum(inputs.values()) - features["respired"]
    return features
