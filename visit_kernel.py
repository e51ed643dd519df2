"""One parameter sample of VISIT's carbon and water cycle, day by day, compiled with Numba.

Everything here runs on one sample and releases the GIL, so that samples run in parallel threads. Units: carbon
Mg C ha-1 (fluxes per day), water mm (fluxes mm day-1), temperatures deg C. Equations: Sim-CYCLE/VISIT, Ito & Oikawa
(2002, Ecological Modelling 151:147-179) after Monsi-Saeki and Kuroiwa (canopy), Raich et al. (1991, temperature),
Leuning (1995, stomata), Yokota & Hagihara (1996, acclimation and size effect), Lloyd & Taylor (1994, decay),
Penman-Monteith (water), Boyer et al. (1996, DOC). Oddities of VISIT are kept, because the aim is VISIT's output.
"""

from collections import namedtuple
from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit

from sites import Site
from visit_forcing import Day, drought_water, upper_capacity

# ---- layouts -----------------------------------------------------------------------------------------------------
# Vegetation parameters of one layer (tree or C3 floor); the last four are derived once per sample.
Layer = namedtuple(
    "Layer",
    "albedo alloc_ass alloc_abg sla ek0 lue pmax topt tmin tmax gs_b0 gs_b1 gs_b2 km_nstl kmci cmpcd0 rgf rgc rgr rmf0 "
    "rmc_s rmr_s rmc_h rmr_h f_sz_s f_sz_r lf0 lc0 lr0 lai_per_carbon log_q_f log_q_c log_q_r",
)
RAW_LAYER = Layer._fields[:29]
Soil = namedtuple(
    "Soil",
    "albedo0 sr_lf sr_lc sr_lr sr_ha sr_hi sr_hp kml kmh kmsl kmsh f_co2_lf f_co2_lc f_co2_lr f_hm_a f_hm_i f_hm_p",
)
Ground = namedtuple("Ground", "capacity_upper capacity_lower exchange_cap drought_water old_runoff")
# Pools at the end of a day: Mg C ha-1, mm for water, mg L-1 for doc, mmol m-2 s-1 for conductance.
STATE = (
    "tree_foliage", "tree_stem", "tree_root", "tree_store", "c3_foliage", "c3_stem", "c3_root", "c3_store",
    "tree_leaf_litter", "tree_stem_litter", "tree_root_litter", "c3_leaf_litter", "c3_stem_litter", "c3_root_litter",
    "humus_active", "humus_intermediate", "humus_passive", "doc", "water_upper", "water_lower",
    "tree_conductance", "c3_conductance",
)  # fmt: skip
LITTER, HUMUS, DOC, WATER, CONDUCTANCE = 8, 14, 17, 18, 20
FLUXES = ("gpp", "npp", "er", "nep", "rh")
# What happened in a day, for balances and the fast spin-up. "moved" is the survival transfer between organs, "cleaned"
# and "floored" are carbon or water created by setting a tiny or negative pool to zero.
_LAYER_FLOWS = (
    "lai", "gpp", "respiration", "foliage_gain", "stem_gain", "root_gain", "store_gain", "leaf_fall", "stem_fall",
    "root_fall", "foliage_moved", "stem_moved", "root_moved", "foliage_cleaned", "stem_cleaned", "root_cleaned",
)  # fmt: skip
_SOIL_FLOWS = (
    *(f"{pool}_decay" for pool in STATE[LITTER:DOC]), *(f"{pool}_floored" for pool in STATE[LITTER:DOC]),
    "litter_respiration", "humified", "doc_export", "erosion", "doc_gain", "decay_factor_litter", "decay_factor_humus",
)  # fmt: skip
_WATER_FLOWS = (
    "rain", "interception", "soil_evaporation", "c3_transpiration", "tree_transpiration", "upper_outflow",
    "exchange", "base_flow", "discharge", "upper_floored", "lower_floored",
)  # fmt: skip
FLOWS = (
    *(f"tree_{flow}" for flow in _LAYER_FLOWS), *(f"c3_{flow}" for flow in _LAYER_FLOWS), *_SOIL_FLOWS, *_WATER_FLOWS
)  # fmt: skip
SOIL_FLOW, WATER_FLOW = 2 * len(_LAYER_FLOWS), 2 * len(_LAYER_FLOWS) + len(_SOIL_FLOWS)
C3_FLOW = len(_LAYER_FLOWS)
# What soil carbon needs to know of a day: litterfall of six kinds, decay factors, carbon leaving by DOC and erosion.
DRIVE = 10

Physiology = namedtuple("Physiology", "p_sat quantum_yield stomatal_slope attenuation")
Water = namedtuple(
    "Water",
    "upper lower rain interception soil_evaporation c3_transpiration tree_transpiration upper_outflow exchange "
    "base_flow discharge upper_floored lower_floored",
)

_compile = njit(cache=True, nogil=True, error_model="numpy")


def layer_rows(parameters: Mapping[str, np.ndarray], layer: str) -> np.ndarray:
    """(run, len(Layer._fields)) parameters of `layer` ("tree" or "c3") from physical values by catalogue name."""
    p = {name: np.asarray(parameters[f"{layer}_{name}"], dtype=np.float64) for name in RAW_LAYER}
    derived = [p["sla"] * 2.2 / 200.0]  # one-sided leaf area (m2 m-2) per foliage carbon (Mg C ha-1)
    derived += [
        np.log(np.asarray(parameters[f"{layer}_q{organ}"], dtype=np.float64)) for organ in ("Tf0", "Tc0", "Tr0")
    ]
    return np.stack([*p.values(), *derived], axis=1)


def soil_rows(parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """(run, len(Soil._fields)) kernel parameters of the soil from physical values by catalogue name."""
    return np.stack([np.asarray(parameters[f"soil_{name}"], dtype=np.float64) for name in Soil._fields], axis=1)


def ground_row(site: Site, old_runoff: bool = False) -> np.ndarray:
    """(len(Ground._fields),) site constants; `old_runoff` takes VISIT's runoff scheme from before 2014."""
    exchange = 1000.0 * 86400.0 * site.saturated_conductivity  # mm day-1
    return np.array(
        [upper_capacity(site), site.lower_capacity, exchange, drought_water(site), float(old_runoff)], dtype=np.float64
    )


def start_state(ground: Sequence[float]) -> np.ndarray:
    """(len(STATE),) pools at the start of the spin-up: almost bare ground, half-full soil water."""
    state = np.zeros(len(STATE))
    state[: HUMUS + 3] = 0.01
    state[[3, 7]] = 0.001
    state[WATER], state[WATER + 1] = 0.5 * ground[0], 0.5 * ground[1]
    return state


# ---- leaf and canopy ---------------------------------------------------------------------------------------------
@_compile
def leaf_physiology(layer, day, lower_water, lower_capacity):
    """Light-saturated rate P_sat (umol m-2 s-1), quantum yield and stomatal slope under today's air and water.

    Intercellular CO2 is relaxed by exactly six passes, with no test of convergence, as VISIT does.
    """
    gamma = layer.cmpcd0 * day.compensation
    span = max(day.co2 - gamma, 1.0)
    stomatal_slope = layer.gs_b1 / (span * (1.0 + day.vpd / layer.gs_b2))
    f_water = min(max(0.05 + 0.95 * lower_water / (lower_water + layer.km_nstl * lower_capacity), 0.0), 1.0)
    p_water = layer.pmax * f_water
    yield_top = layer.lue * day.yield_temperature
    t = day.surface_temperature
    a = (t - layer.tmax) * (t - layer.tmin)
    ci = 0.7 * day.co2
    p_sat = 0.0
    quantum_yield = 0.0
    for _ in range(6):
        quantum_yield = yield_top * ci / (90.0 + 0.6 * ci)
        off = t - (layer.topt + 0.01 * ci)
        below = a - off * off
        f_temperature = min(max(a / below, 0.0), 1.0) if below != 0.0 else 1.0
        f_co2 = min(max(0.30 + 0.70 * (ci - gamma) / (layer.kmci + ci), 0.0), 1.0)
        p_sat = p_water * f_temperature * f_co2
        light = quantum_yield * day.light_leaf
        both = p_sat + light
        p_top = p_sat * light / both if both != 0.0 else 0.0
        conductance = layer.gs_b0 + stomatal_slope * p_top if p_top > 0.0 else layer.gs_b0
        ci = min(max(day.co2 - 1560.0 * p_top / conductance, 0.0), day.co2)
    return Physiology(p_sat, quantum_yield, stomatal_slope, layer.ek0 / day.noon_height)


@_compile
def canopy_rate(leaf, light, lai):
    """Noon photosynthesis of the canopy, umol m-2 s-1, Kuroiwa's closed form without day length."""
    if leaf.p_sat <= 0.0:
        return 0.0
    b = leaf.attenuation * leaf.quantum_yield * light / leaf.p_sat
    ratio = (1.0 + np.sqrt(1.0 + b)) / (1.0 + np.sqrt(1.0 + b * np.exp(-leaf.attenuation * lai)))
    return 2.0 * leaf.p_sat / leaf.attenuation * np.log(ratio)


@_compile
def target_lai(layer, leaf, day, light, t_stem):
    """Leaf area (m2 m-2) at which the lowest leaf pays for itself (Kuroiwa). Units are mixed as in VISIT."""
    if leaf.p_sat <= 0.0:
        return 0.0
    cost = 22000.0 / layer.sla * (layer.rmf0 / 1000.0 * t_stem + layer.lf0 * (1.0 + layer.rgf))
    gain = leaf.p_sat * day.day_length
    net = gain - 24.0 * cost
    if net == 0.0:
        return 0.0
    p_day = leaf.p_sat * (gain / net - 1.0)
    if p_day < 0.0:
        return 0.0
    p_day = max(p_day, 1e-300)
    return np.log(max(1.0, leaf.attenuation * leaf.quantum_yield * light / p_day)) / leaf.attenuation


@_compile
def live_part(pool, size):
    """Sapwood of a stem, or fine roots of a root: the share of live tissue falls as the pool grows."""
    if pool <= 1.0:  # below 1 Mg C ha-1 the power exceeds the pool
        return max(pool, 0.0)
    return min(np.exp(np.log(pool) * (1.0 - 0.33334 * pool / (size + pool))), pool)


# ---- water -------------------------------------------------------------------------------------------------------
@_compile
def penman_monteith(day, net_radiation, heat, surface_resistance):
    """Evaporative demand, mm day-1; `heat` is the specific heat VISIT uses in this place (W h kg-1 K-1)."""
    demand = day.day_length / 695.0 * (day.slope * net_radiation + heat * day.dryness)
    return max(0.0, demand / (day.slope + 0.667 * (1.0 + surface_resistance / day.resistance)))


@_compile
def smooth_limit(supply, demand):
    """The smaller of supply and demand, rounded off where they are close (mm day-1)."""
    if supply == 0.0 or demand == 0.0:
        return 0.0
    total = supply + demand
    return (total - np.sqrt(max(total * total - 3.4 * supply * demand, 0.0))) / 1.7


@_compile
def overflow(inflow, deficit, old_runoff):
    """Water (mm day-1) that a bucket with `deficit` mm of room does not hold of `inflow`."""
    if old_runoff > 0.0:
        return max(0.0, -deficit)
    if inflow == 0.0 and deficit >= 1.0:
        return 0.0  # the power below is then at most the deficit
    cubes = inflow * inflow * inflow + deficit * deficit * deficit
    return max(0.0, max(cubes, 0.0) ** 0.33333 - deficit)


@_compile
def transpiration_demand(day, net_radiation, conductance):
    """Transpiration demand, mm day-1; 0 without conductance or radiation."""
    if conductance <= 0.0 or net_radiation <= 0.0:
        return 0.0
    return penman_monteith(day, net_radiation, 0.2813, 1.0 / (2.24e-5 * conductance))


@_compile
def water_day(ground, day, upper, lower, lai_tree, lai_c3, rn_tree, rn_c3, rn_soil, g_tree, g_c3):
    """Two-bucket water balance of one day. Base flow leaves the lower bucket twice, as in VISIT."""
    interception_tree = smooth_limit(min(day.rain, 0.25 * lai_tree), penman_monteith(day, rn_tree, 0.2813, 0.0))
    interception_c3 = smooth_limit(
        min(day.rain - interception_tree, 0.25 * lai_c3), penman_monteith(day, rn_c3, 0.2813, 0.0)
    )
    inflow = day.rain - interception_tree - interception_c3
    soil_resistance = 1.0 / (2.24e-5 * (1000.0 * upper / ground.capacity_upper + 100.0))
    outflow = overflow(inflow, ground.capacity_upper - upper, ground.old_runoff)
    upper = upper + inflow - outflow
    evaporation = max(0.0, smooth_limit(upper, penman_monteith(day, rn_soil, 1014.0, soil_resistance)))
    upper -= evaporation
    used_c3 = smooth_limit(upper, transpiration_demand(day, rn_c3, g_c3))
    upper -= used_c3
    used_tree = smooth_limit(lower, transpiration_demand(day, rn_tree, g_tree))
    base = 0.001 * lower * day.thawed
    lower -= base
    discharge = overflow(outflow, ground.capacity_lower - lower, 0.0) + base
    ratio = ground.capacity_upper / ground.capacity_lower
    exchange = (lower * ratio - upper) / (1.0 + ratio)
    exchange = min(0.5 * exchange, ground.exchange_cap) if exchange > 0.0 else max(exchange, -ground.exchange_cap)
    new_upper = upper + exchange
    new_lower = max(lower - exchange, 0.0)
    floored = new_lower - (lower - exchange)
    final_lower = new_lower + outflow - discharge - used_tree
    return Water(
        max(new_upper, 0.0), max(final_lower, 0.0), day.rain, interception_tree + interception_c3, evaporation, used_c3,
        used_tree, outflow, exchange, base, discharge, max(-new_upper, 0.0), floored + max(-final_lower, 0.0),
    )  # fmt: skip


# ---- plants ------------------------------------------------------------------------------------------------------
@_compile
def plant_day(layer, leaf, day, light, lai_start, lower_water, drought_below, state, first, recorded, flows, offset):
    """Litterfall, photosynthesis, respiration, allocation and survival transfer of one layer.

    Updates state[first:first+4] (foliage, stem, root, store) and returns
    (GPP, autotrophic respiration, leaf fall, stem fall, root fall), all Mg C ha-1 day-1.
    """
    foliage, stem, root, store = state[first], state[first + 1], state[first + 2], state[first + 3]
    t_foliage = np.exp(layer.log_q_f * day.q10_surface + day.q10_acclimation)
    t_stem = np.exp(layer.log_q_c * day.q10_surface + day.q10_acclimation)
    t_root = np.exp(layer.log_q_r * day.q10_soil + day.q10_acclimation_soil)
    sapwood = live_part(stem, layer.f_sz_s)
    fine_root = live_part(root, layer.f_sz_r)
    rate_stem = (layer.rmc_s * sapwood + layer.rmc_h * (stem - sapwood)) / (stem + 1e-5)
    rate_root = (layer.rmr_s * fine_root + layer.rmr_h * (root - fine_root)) / (root + 1e-5)
    store_limit = 0.1 * sapwood + 0.3 * fine_root
    best_lai = target_lai(layer, leaf, day, light, t_stem)

    shed = layer.lf0
    if lower_water < drought_below and lai_start > 0.05 and day.air_temperature > -5.0:
        shed += 0.012
    leaf_fall, stem_fall, root_fall = shed * max(foliage, 0.0), layer.lc0 * max(stem, 0.0), layer.lr0 * max(root, 0.0)
    foliage -= leaf_fall
    stem -= stem_fall
    root -= root_fall
    lai = max(0.0, layer.lai_per_carbon * foliage)

    gpp = canopy_rate(leaf, light, lai) * day.day_length * 4.32e-4
    care_foliage = max(foliage, 0.0) * layer.rmf0 / 1000.0 * t_foliage
    care_stem = max(stem, 0.0) * rate_stem / 1000.0 * t_stem
    care_root = max(root, 0.0) * rate_root / 1000.0 * t_root
    maintenance = care_foliage + care_stem + care_root
    surplus = gpp - maintenance
    growth_foliage = growth_stem = growth_root = 0.0
    if surplus > 0.0:
        share = 0.0
        if lai <= best_lai:
            need = (best_lai - lai) / layer.lai_per_carbon
            share = layer.alloc_ass if need <= layer.alloc_ass * surplus else min(need / surplus, 0.05)
            if day.surface_temperature < layer.tmin:
                share *= 0.7
        to_foliage = share * surplus
        to_stem = (1.0 - share) * layer.alloc_abg * surplus
        to_root = (1.0 - share) * (1.0 - layer.alloc_abg) * surplus
        growth_foliage, growth_stem, growth_root = layer.rgf * to_foliage, layer.rgc * to_stem, layer.rgr * to_root
    else:
        to_foliage = layer.alloc_ass * gpp - care_foliage
        to_stem = (1.0 - layer.alloc_ass) * layer.alloc_abg * gpp - care_stem
        to_root = (1.0 - layer.alloc_ass) * (1.0 - layer.alloc_abg) * gpp - care_root
    respiration = maintenance + growth_foliage + growth_stem + growth_root

    foliage_gain = to_foliage - growth_foliage
    stem_gain, root_gain, store_gain = -growth_stem, -growth_root, 0.0
    if to_stem > 0.0 and store < store_limit:
        store_gain += to_stem
    else:
        stem_gain += to_stem
    if to_root > 0.0 and store + store_gain < store_limit:
        store_gain += to_root
    else:
        root_gain += to_root
    foliage += foliage_gain
    stem += stem_gain
    root += root_gain
    store += store_gain

    foliage_moved = stem_moved = root_moved = 0.0
    critical = 0.1 / layer.lai_per_carbon
    if foliage < critical:
        u = 0.05 * max(stem, 0.0) / critical
        v = 0.1 * max(root, 0.0) / critical
        from_stem = critical * layer.alloc_abg * u / (0.5 + u)
        from_root = critical * (1.0 - layer.alloc_abg) * v / (0.5 + v)
        foliage_moved, stem_moved, root_moved = from_stem + from_root, -from_stem, -from_root
        if stem + stem_moved <= 0.0 < root + root_moved:
            moved = layer.alloc_abg * (root + root_moved)
            stem_moved, root_moved = stem_moved + moved, root_moved - moved
        elif root + root_moved <= 0.0 < stem + stem_moved:
            moved = (1.0 - layer.alloc_abg) * (stem + stem_moved)
            stem_moved, root_moved = stem_moved - moved, root_moved + moved
        foliage += foliage_moved
        stem += stem_moved
        root += root_moved
    final_foliage = foliage if foliage >= 1e-12 else 0.0
    final_stem = stem if stem >= 1e-12 else 0.0
    final_root = root if root >= 1e-12 else 0.0
    state[first], state[first + 1], state[first + 2], state[first + 3] = final_foliage, final_stem, final_root, store
    if recorded:
        flows[offset], flows[offset + 1], flows[offset + 2] = lai_start, gpp, respiration
        flows[offset + 3], flows[offset + 4], flows[offset + 5] = foliage_gain, stem_gain, root_gain
        flows[offset + 6] = store_gain
        flows[offset + 7], flows[offset + 8], flows[offset + 9] = leaf_fall, stem_fall, root_fall
        flows[offset + 10], flows[offset + 11], flows[offset + 12] = foliage_moved, stem_moved, root_moved
        flows[offset + 13] = final_foliage - foliage
        flows[offset + 14] = final_stem - stem
        flows[offset + 15] = final_root - root
    return gpp, respiration, leaf_fall, stem_fall, root_fall


# ---- soil carbon -------------------------------------------------------------------------------------------------
@_compile
def moisture_factor(water, capacity, wet, aeration):
    """The smaller of a wetness and an aeration term of decay, dimensionless."""
    air = min(max(1.0 - water / capacity, 0.0), 1.0)
    return min(0.2 + 0.8 * water / (wet * capacity + water), 0.6 + 0.4 * air * aeration / (aeration + air))


@_compile
def soil_carbon_day(soil, drive, pools, recorded, flows, offset):
    """Decay of six litter and three humus pools; updates `pools` (nine, litter then humus) and returns Rh.

    drive: litterfall (six), decay factors of litter and humus, carbon leaving the active humus by DOC and by erosion.
    Today's litterfall is added at the end: it does not decay today. The shares f_hm_* are used raw.
    """
    f_litter, f_humus = drive[6] / 1000.0, drive[7] / 1000.0
    rate_leaf, rate_stem, rate_root = soil.sr_lf * f_litter, soil.sr_lc * f_litter, soil.sr_lr * f_litter
    leaf = rate_leaf * (pools[0] + pools[3])
    stem = rate_stem * (pools[1] + pools[4])
    root = rate_root * (pools[2] + pools[5])
    litter_respiration = soil.f_co2_lf * leaf + soil.f_co2_lc * stem + soil.f_co2_lr * root
    humified = (1.0 - soil.f_co2_lf) * leaf + (1.0 - soil.f_co2_lc) * stem + (1.0 - soil.f_co2_lr) * root
    active, intermediate, passive = soil.sr_ha * f_humus, soil.sr_hi * f_humus, soil.sr_hp * f_humus
    losses = (
        rate_leaf * pools[0], rate_stem * pools[1], rate_root * pools[2], rate_leaf * pools[3], rate_stem * pools[4],
        rate_root * pools[5], active * pools[6], intermediate * pools[7], passive * pools[8],
    )  # fmt: skip
    gains = (
        drive[0], drive[1], drive[2], drive[3], drive[4], drive[5],
        soil.f_hm_a * humified, soil.f_hm_i * humified, soil.f_hm_p * humified,
    )  # fmt: skip
    doc_export = erosion = 0.0
    for i in range(9):
        after = pools[i] + gains[i] - losses[i]
        if i == 6:  # exports take no more than there is
            doc_export = min(drive[8], max(after, 0.0))
            erosion = min(drive[9], max(after - doc_export, 0.0))
            after -= doc_export + erosion
        floored = max(after, 0.0)
        if recorded:
            flows[offset + i] = losses[i]
            flows[offset + 9 + i] = floored - after
        pools[i] = floored
    if recorded:
        flows[offset + 18], flows[offset + 19] = litter_respiration, humified
        flows[offset + 20], flows[offset + 21] = doc_export, erosion
    return litter_respiration + losses[6] + losses[7] + losses[8]


# ---- one sample, many days ---------------------------------------------------------------------------------------
@_compile
def run_days(rows, days, state, exports_from, water_only, fluxes, pools, flows, drive):
    """Run one sample over `days`, updating `state` in place.

    rows: (tree, c3, soil, ground) parameter rows; days: (day, forcing) of Forcing.days; state: (len(STATE),);
    exports_from: index of the first day on which DOC and erosion leave the active humus; water_only: hold all carbon.
    Filled where they are not empty: fluxes (day, 5) and flows (day, len(FLOWS)) per day, pools (day, len(STATE)) at
    the end of each day, drive (day, DRIVE) for soil_days.
    """
    tree_row, c3_row, soil_row, ground_values = rows
    tree, c3 = _layer(tree_row), _layer(c3_row)
    soil = _soil(soil_row)
    ground = Ground(ground_values[0], ground_values[1], ground_values[2], ground_values[3], ground_values[4])
    recorded = flows.shape[0] > 0
    flow = np.zeros(len(FLOWS))
    today = np.zeros(DRIVE)
    soil_pools = state[LITTER:DOC]
    for i in range(days.shape[0]):
        day = _day(days[i])
        # 1-3: leaf area, light and net radiation from start-of-day foliage
        lai_tree = max(0.0, tree.lai_per_carbon * state[0])
        lai_c3 = max(0.0, c3.lai_per_carbon * state[4])
        absorbed_tree = 1.0 - np.exp(-0.9 * tree.ek0 / day.noon_height * lai_tree)
        absorbed_c3 = (1.0 - absorbed_tree) * (1.0 - 0.9 * np.exp(-c3.ek0 / day.noon_height * lai_c3))
        absorbed_soil = 1.0 - absorbed_tree - absorbed_c3
        cover_tree = 1.0 - np.exp(-tree.ek0 * lai_tree)
        cover_c3 = (1.0 - cover_tree) * (1.0 - np.exp(-c3.ek0 * lai_c3))
        light_c3 = day.light_canopy * (1.0 - absorbed_tree)
        albedo_soil = min(max(soil.albedo0 + (0.7 - soil.albedo0) / (1.0 + np.exp(3.5)), 0.05), 0.7)
        rn_tree = day.shortwave * absorbed_tree * (1.0 - tree.albedo) - cover_tree * day.longwave
        rn_c3 = day.shortwave * absorbed_c3 * (1.0 - c3.albedo) - cover_c3 * day.longwave
        rn_soil = day.shortwave * absorbed_soil * (1.0 - albedo_soil) - (1.0 - cover_tree - cover_c3) * day.longwave
        # 4: water, with yesterday's conductance
        water = water_day(
            ground, day, state[WATER], state[WATER + 1], lai_tree, lai_c3, rn_tree, rn_c3, rn_soil,
            state[CONDUCTANCE], state[CONDUCTANCE + 1],
        )  # fmt: skip
        state[WATER], state[WATER + 1] = water.upper, water.lower
        # 5: leaves, and tomorrow's conductance
        leaf_tree = leaf_physiology(tree, day, water.lower, ground.capacity_lower)
        leaf_c3 = leaf_physiology(c3, day, water.lower, ground.capacity_lower)
        state[CONDUCTANCE] = tree.gs_b0 * lai_tree + leaf_tree.stomatal_slope * canopy_rate(
            leaf_tree, day.light_canopy, lai_tree
        )
        state[CONDUCTANCE + 1] = c3.gs_b0 * lai_c3 + leaf_c3.stomatal_slope * canopy_rate(leaf_c3, light_c3, lai_c3)
        if water_only:
            continue
        # 7: plants
        gpp_tree, respiration_tree, today[0], today[1], today[2] = plant_day(
            tree, leaf_tree, day, day.light_canopy, lai_tree, water.lower, ground.drought_water, state, 0,
            recorded, flow, 0,
        )  # fmt: skip
        gpp_c3, respiration_c3, today[3], today[4], today[5] = plant_day(
            c3, leaf_c3, day, light_c3, lai_c3, water.lower, ground.drought_water, state, 4, recorded, flow, C3_FLOW,
        )  # fmt: skip
        # 8: soil carbon, then dissolved carbon
        doc = state[DOC]
        if water.lower > 0.0:
            flush = water.discharge / water.lower
            state[DOC] = max(0.0, doc + day.doc_production - day.doc_decay * doc - flush * doc)
        else:
            state[DOC] = 0.0
        today[6] = day.decay_upper * moisture_factor(water.upper, ground.capacity_upper, soil.kml, soil.kmsl)
        today[7] = day.decay_lower * moisture_factor(water.lower, ground.capacity_lower, soil.kmh, soil.kmsh)
        exporting = i >= exports_from
        today[8] = 1e-5 * state[DOC] * water.discharge if exporting else 0.0
        today[9] = day.erosion if exporting else 0.0
        rh = soil_carbon_day(soil, today, soil_pools, recorded, flow, SOIL_FLOW)
        # 9: the ecosystem
        if fluxes.shape[0] > 0:
            gpp = gpp_tree + gpp_c3
            npp = gpp - (respiration_tree + respiration_c3)
            fluxes[i, 0] = gpp
            fluxes[i, 1] = npp
            fluxes[i, 2] = respiration_tree + respiration_c3 + rh
            fluxes[i, 3] = npp - rh
            fluxes[i, 4] = rh
        if drive.shape[0] > 0:
            drive[i] = today
        if pools.shape[0] > 0:
            pools[i] = state
        if recorded:
            flow[SOIL_FLOW + 22] = state[DOC] - doc
            flow[SOIL_FLOW + 23], flow[SOIL_FLOW + 24] = today[6], today[7]
            flow[WATER_FLOW] = water.rain
            flow[WATER_FLOW + 1], flow[WATER_FLOW + 2] = water.interception, water.soil_evaporation
            flow[WATER_FLOW + 3], flow[WATER_FLOW + 4] = water.c3_transpiration, water.tree_transpiration
            flow[WATER_FLOW + 5], flow[WATER_FLOW + 6] = water.upper_outflow, water.exchange
            flow[WATER_FLOW + 7], flow[WATER_FLOW + 8] = water.base_flow, water.discharge
            flow[WATER_FLOW + 9], flow[WATER_FLOW + 10] = water.upper_floored, water.lower_floored
            flows[i] = flow


@_compile
def _layer(r):
    return Layer(
        r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15], r[16],
        r[17], r[18], r[19], r[20], r[21], r[22], r[23], r[24], r[25], r[26], r[27], r[28], r[29], r[30], r[31], r[32],
    )  # fmt: skip


@_compile
def _soil(r):
    return Soil(
        r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15], r[16]
    )


@_compile
def _day(r):
    return Day(
        r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15], r[16],
        r[17], r[18], r[19], r[20], r[21], r[22], r[23], r[24], r[25],
    )  # fmt: skip


@_compile
def soil_days(soil_row, drive, pools):
    """Soil carbon alone over days with known `drive` (day, DRIVE); updates `pools` (nine) in place."""
    soil = _soil(soil_row)
    flows = np.zeros(0)
    for i in range(drive.shape[0]):
        soil_carbon_day(soil, drive[i], pools, False, flows, 0)
