"""Names and order of everything that the compiled process model reads and writes."""

from collections import namedtuple
from collections.abc import Mapping

import numpy as np

from calibration.common.sites import Site
from calibration.visit.forcing import drought_water, upper_capacity

# Vegetation parameters of one layer (tree or C3 floor). Maintenance rates are per day here (not 1e-3 per day); the last
# eight are derived once per sample (parameter_rows), since divisions are what a day's computation mostly waits for.
RATES = ("rmf0", "rmc_s", "rmr_s", "rmc_h", "rmr_h")
RAW_LAYER = (
    "albedo", "alloc_ass", "alloc_abg", "ek0", "lue", "pmax", "topt", "tmin", "tmax", "gs_b0", "gs_b1", "km_nstl",
    "kmci", "cmpcd0", "rgf", "rgc", "rgr", *RATES, "f_sz_s", "f_sz_r", "lf0", "lc0", "lr0",
)  # fmt: skip
Layer = namedtuple(
    "Layer",
    [*RAW_LAYER, "lai_per_carbon", "carbon_per_lai", "leaf_care", "leaf_renewal", "vpd_sensitivity", "log_q_f",
     "log_q_c", "log_q_r"],
)  # fmt: skip
Soil = namedtuple(
    "Soil",
    "albedo0 sr_lf sr_lc sr_lr sr_ha sr_hi sr_hp kml kmh kmsl kmsh f_co2_lf f_co2_lc f_co2_lr f_hm_a f_hm_i f_hm_p",
)
# Site constants: mm, mm, mm day-1, mm; then 1 for variants (sites.Variant) of VISIT.
Ground = namedtuple(
    "Ground", "capacity_upper capacity_lower exchange_cap drought_water old_runoff sapwood_cap exports_in_nep"
)
PARAMETER_ROWS = 2 * len(Layer._fields) + len(Soil._fields)
C3_ROW, SOIL_ROW = len(Layer._fields), 2 * len(Layer._fields)

# State at the end of a day: pools in Mg C ha-1, doc in mg L-1, water in mm, conductance in mmol m-2 s-1.
State = namedtuple(
    "State",
    "tree_foliage tree_stem tree_root tree_store c3_foliage c3_stem c3_root c3_store "
    "tree_leaf_litter tree_stem_litter tree_root_litter c3_leaf_litter c3_stem_litter c3_root_litter "
    "humus_active humus_intermediate humus_passive doc water_upper water_lower tree_conductance c3_conductance",
)
STATE = State._fields
LITTER, HUMUS, DOC, WATER = (STATE.index(n) for n in ("tree_leaf_litter", "humus_active", "doc", "water_upper"))

# What happened to one layer in a day: leaf area at its start (m2 m-2), carbon in Mg C ha-1 day-1. "moved" is the
# survival transfer between organs, "cleaned" carbon created (or lost) by setting a negative or tiny pool to zero.
Plant = namedtuple(
    "Plant",
    "lai gpp respiration foliage_gain stem_gain root_gain store_gain leaf_fall stem_fall root_fall foliage_moved "
    "stem_moved root_moved foliage_cleaned stem_cleaned root_cleaned",
)
# Soil carbon, Mg C ha-1 day-1; "floored" is carbon created by setting a negative pool to zero; doc_gain in mg L-1.
_POOLS = STATE[LITTER:DOC]
SoilCarbon = namedtuple(
    "SoilCarbon",
    [*(f"{pool}_decay" for pool in _POOLS), *(f"{pool}_floored" for pool in _POOLS), "litter_respiration", "humified",
     "doc_export", "erosion", "doc_gain", "decay_factor_litter", "decay_factor_humus"],
)  # fmt: skip
# Water, mm day-1. VISIT takes base_flow from the lower bucket twice but counts it once in the discharge.
Water = namedtuple(
    "Water",
    "rain interception soil_evaporation c3_transpiration tree_transpiration upper_outflow exchange base_flow discharge "
    "upper_floored lower_floored",
)
FLUXES = ("gpp", "npp", "er", "nep", "rh")  # Mg C ha-1 day-1
FLOWS = (
    *(f"tree_{name}" for name in Plant._fields), *(f"c3_{name}" for name in Plant._fields),
    *SoilCarbon._fields, *Water._fields,
)  # fmt: skip


def parameter_rows(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """(run, PARAMETER_ROWS) what the kernel reads, from physical values (run,) by catalogue name: tree, C3, soil."""
    columns = []
    for layer in ("tree", "c3"):
        raw = {name: np.asarray(parameters[f"{layer}_{name}"], dtype=np.float64) for name in RAW_LAYER}
        raw |= {name: raw[name] / 1000.0 for name in RATES}
        sla = np.asarray(parameters[f"{layer}_sla"], dtype=np.float64)
        lai_per_carbon = sla * 2.2 / 200.0  # one-sided; 2.2 g dry matter per g C, sla counts both sides
        cost = 24.0 * 22000.0 / sla  # daily leaf cost per leaf area, times 24
        columns += [*raw.values(), lai_per_carbon, 1.0 / lai_per_carbon]
        columns += [cost * raw["rmf0"], cost * raw["lf0"] * (1.0 + raw["rgf"])]
        columns += [1.0 / np.asarray(parameters[f"{layer}_gs_b2"], dtype=np.float64)]
        columns += [np.log(parameters[f"{layer}_{name}"]) for name in ("qTf0", "qTc0", "qTr0")]
    columns += [
        np.asarray(parameters[f"soil_{name}"], dtype=np.float64) / (1000.0 if name.startswith("sr_") else 1.0)
        for name in Soil._fields
    ]
    return np.stack(columns, axis=1)


def ground_row(site: Site, old_runoff: bool = False) -> np.ndarray:
    """(len(Ground._fields),) site constants; `old_runoff` takes VISIT's runoff scheme from before 2014."""
    exchange = 1000.0 * 86400.0 * site.saturated_conductivity
    variant = site.variant
    values = Ground(
        upper_capacity(site), site.lower_capacity, exchange, drought_water(site),
        float(old_runoff or variant.old_runoff), float(variant.sapwood_cap), float(variant.exports_in_nep),
    )  # fmt: skip
    return np.array(values, dtype=np.float64)


def start_state(ground: np.ndarray) -> np.ndarray:
    """(len(STATE),) state at the start of the spin-up: almost bare ground, half-full soil water."""
    state = np.zeros(len(STATE))
    state[:DOC] = 0.01
    state[[STATE.index("tree_store"), STATE.index("c3_store")]] = 0.001
    state[WATER : WATER + 2] = 0.5 * ground[:2]
    return state
