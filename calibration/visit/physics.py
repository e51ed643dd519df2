"""VISIT's carbon and water cycle: one day of one sample, as plain functions of numbers.

Units: carbon Mg C ha-1 (fluxes per day), water mm (fluxes mm day-1), temperatures deg C, light umol m-2 s-1.
Equations: Sim-CYCLE/VISIT, Ito & Oikawa (2002, Ecological Modelling 151:143-176) after Monsi-Saeki and Kuroiwa
(canopy), Raich et al. (1991, temperature), Osmond et al. (1980, quantum yield), Brooks & Farquhar (1985, compensation
point), Leuning (1995, stomata), Yokota & Hagihara (1996, acclimation and size effect), Lloyd & Taylor (1994, decay),
Penman-Monteith (water), Boyer et al. (1996, DOC). VISIT's oddities are kept: the aim is VISIT's output.

The functions are inlined into the loop over samples of visit/kernel.py, which the compiler vectorises. That needs code
without early returns, stores or library calls: conditions choose between values, exp and log come from vector_math.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from calibration.visit.layout import Plant, SoilCarbon, State, Water
from calibration.visit.vector_math import exp, log

Physiology = namedtuple("Physiology", "p_sat quantum_yield stomatal_slope attenuation")

_inline = njit(error_model="numpy", forceinline=True)


@_inline
def _low(a, b):
    return a if a < b else b


@_inline
def _high(a, b):
    return a if a > b else b


@_inline
def _clip(x, low, high):
    return _low(_high(x, low), high)


# ---- leaf and canopy ---------------------------------------------------------------------------------------------
@_inline
def _leaf_pass(layer, day, ci, gamma, stomatal_slope, p_water, yield_top, a):
    """One pass of the leaf's CO2: -> (P_sat, quantum yield, new intercellular CO2 in ppm).

    The three quotients share one division, and so do leaf rate and conductance. Neither the CO2 response nor the new
    CO2 needs an upper limit: ci - gamma is below kmci + ci, and nothing is added to the CO2 of the air.
    """
    off = day.surface_temperature - (layer.topt + 0.01 * ci)
    below = a - off * off
    for_yield, for_temperature, for_co2 = 90.0 + 0.6 * ci, below if below != 0.0 else 1.0, layer.kmci + ci
    inverse = 1.0 / (for_yield * for_temperature * for_co2)
    quantum_yield = yield_top * ci * (inverse * for_temperature * for_co2)
    f_temperature = _clip(a * (inverse * for_yield * for_co2), 0.0, 1.0) if below != 0.0 else 1.0
    f_co2 = _high(0.30 + 0.70 * (ci - gamma) * (inverse * for_yield * for_temperature), 0.0)
    p_sat = p_water * f_temperature * f_co2
    light = quantum_yield * day.light_leaf
    both = p_sat * light  # the leaf's rate is both / (p_sat + light)
    conducted = _high(layer.gs_b0 * (p_sat + light) + stomatal_slope * both, 1e-300)
    return p_sat, quantum_yield, _high(day.co2 - 1560.0 * both / conducted, 0.0)


@_inline
def leaf_physiology(layer, day, lower_water, lower_capacity):
    """Light-saturated rate P_sat (umol m-2 s-1), quantum yield and stomatal slope under today's air and water.

    Intercellular CO2 is relaxed by exactly six passes without a test of convergence, as in VISIT.
    """
    gamma = layer.cmpcd0 * day.compensation
    span = _high(day.co2 - gamma, 1.0)
    slope = layer.gs_b1 / (span * (1.0 + day.vpd * layer.vpd_sensitivity))
    water = _clip(0.05 + 0.95 * lower_water / (lower_water + layer.km_nstl * lower_capacity), 0.0, 1.0)
    p_water = layer.pmax * water
    yield_top = layer.lue * day.yield_temperature
    a = (day.surface_temperature - layer.tmax) * (day.surface_temperature - layer.tmin)
    ci = 0.7 * day.co2
    _, _, ci = _leaf_pass(layer, day, ci, gamma, slope, p_water, yield_top, a)
    _, _, ci = _leaf_pass(layer, day, ci, gamma, slope, p_water, yield_top, a)
    _, _, ci = _leaf_pass(layer, day, ci, gamma, slope, p_water, yield_top, a)
    _, _, ci = _leaf_pass(layer, day, ci, gamma, slope, p_water, yield_top, a)
    _, _, ci = _leaf_pass(layer, day, ci, gamma, slope, p_water, yield_top, a)
    p_sat, quantum_yield, _ = _leaf_pass(layer, day, ci, gamma, slope, p_water, yield_top, a)
    return Physiology(p_sat, quantum_yield, slope, layer.ek0 * day.path)


@_inline
def canopy_rate(leaf, light, lai):
    """Noon photosynthesis of the canopy, umol m-2 s-1: Kuroiwa's closed form without day length."""
    b = leaf.attenuation * leaf.quantum_yield * light / leaf.p_sat
    ratio = (1.0 + np.sqrt(1.0 + b)) / (1.0 + np.sqrt(1.0 + b * exp(-leaf.attenuation * lai)))
    rate = 2.0 * leaf.p_sat / leaf.attenuation * log(ratio)
    return rate if leaf.p_sat > 0.0 else 0.0


@_inline
def target_lai(layer, leaf, day, light, t_stem):
    """Leaf area (m2 m-2) at which the lowest leaf pays for itself (Kuroiwa). Units are mixed as in VISIT.

    Its daily rate P_d = P_sat (P_sat DL / (P_sat DL - cost) - 1) = P_sat cost / net.
    """
    cost = layer.leaf_care * t_stem + layer.leaf_renewal
    net = leaf.p_sat * day.day_length - cost
    ratio = leaf.attenuation * leaf.quantum_yield * light * net / _high(leaf.p_sat * cost, 1e-300)
    best = log(_clip(ratio, 1.0, 1e300)) / leaf.attenuation
    return best if leaf.p_sat > 0.0 and net > 0.0 else 0.0


@_inline
def live_part(pool, size, cap):
    """Sapwood of a stem, or fine roots of a root: the share of live tissue falls as the pool grows.

    Below 1 Mg C ha-1 it exceeds the pool, and dead wood counts negative. Real VISIT runs of small plants answer to
    f_sz_* and to the rates of dead wood as they do here; with a cap at the pool (a variant: the stem) they could not.
    """
    held = _high(pool, 1e-12)
    live = exp(log(held) * (1.0 - 0.33334 * held / (size + held)))
    return (_low(live, held) if cap != 0.0 else live) if pool > 0.0 else 0.0


# ---- water -------------------------------------------------------------------------------------------------------
@_inline
def demand_wet(day, net_radiation):
    """Penman-Monteith demand of a wet surface, mm day-1."""
    return _high(0.0, (day.slope * net_radiation + 0.2813 * day.dryness) * day.wet_evaporation)


@_inline
def demand_through(day, net_radiation, heat, conductance):
    """Penman-Monteith demand through a surface of `conductance` (mmol m-2 s-1), mm day-1; 0 where it is closed.

    `heat` is the specific heat that VISIT uses in this place (W h kg-1 K-1).
    """
    supply = day.day_length * (day.slope * net_radiation + heat * day.dryness) * conductance
    demand = _high(0.0, supply / (day.wet_resistance * conductance + day.dry_resistance))
    return demand if conductance > 0.0 else 0.0


@_inline
def smooth_limit(supply, demand):
    """The smaller of supply and demand, rounded off where they are close, mm day-1."""
    total = supply + demand
    limited = (total - np.sqrt(_high(total * total - 3.4 * supply * demand, 0.0))) * (1.0 / 1.7)
    return limited if supply != 0.0 and demand != 0.0 else 0.0


@_inline
def overflow(inflow, deficit):
    """Water, mm day-1, that a bucket with `deficit` mm of room does not hold of `inflow`."""
    cubes = inflow * inflow * inflow + deficit * deficit * deficit
    root = exp(0.33333 * log(_high(cubes, 1e-300))) if cubes > 0.0 else 0.0
    return _high(0.0, root - deficit)


@_inline
def water_day(ground, day, upper, lower, lai_tree, lai_c3, rn_tree, rn_c3, rn_soil, g_tree, g_c3):
    """Two-bucket water balance of one day -> (upper mm, lower mm, Water). Base flow leaves the lower bucket twice."""
    capacity_upper, capacity_lower = ground.capacity_upper, ground.capacity_lower
    interception_tree = smooth_limit(_low(day.rain, 0.25 * lai_tree), demand_wet(day, rn_tree))
    below_trees = day.rain - interception_tree
    interception_c3 = smooth_limit(_low(below_trees, 0.25 * lai_c3), demand_wet(day, rn_c3))
    inflow = below_trees - interception_c3
    g_soil = 1000.0 * upper / capacity_upper + 100.0
    room = capacity_upper - upper
    outflow = overflow(inflow, room) if ground.old_runoff == 0.0 else _high(0.0, -room)
    upper = upper + inflow - outflow
    evaporation = _high(0.0, smooth_limit(upper, demand_through(day, rn_soil, 1014.0, g_soil)))
    upper -= evaporation
    demand_c3 = demand_through(day, rn_c3, 0.2813, g_c3) if rn_c3 > 0.0 else 0.0
    used_c3 = smooth_limit(upper, demand_c3)
    upper -= used_c3
    demand_tree = demand_through(day, rn_tree, 0.2813, g_tree) if rn_tree > 0.0 else 0.0
    used_tree = smooth_limit(lower, demand_tree)
    base = 0.001 * lower * day.thawed
    lower -= base
    discharge = overflow(outflow, capacity_lower - lower) + base
    ratio = capacity_upper / capacity_lower
    exchange = (lower * ratio - upper) / (1.0 + ratio)
    exchange = _low(0.5 * exchange, ground.exchange_cap) if exchange > 0.0 else _high(exchange, -ground.exchange_cap)
    exact_upper = upper + exchange
    exchanged = lower - exchange
    kept = _high(exchanged, 0.0)
    exact_lower = kept + outflow - discharge - used_tree
    new_upper, new_lower = _high(exact_upper, 0.0), _high(exact_lower, 0.0)
    flows = Water(
        day.rain, interception_tree + interception_c3, evaporation, used_c3, used_tree, outflow, exchange, base,
        discharge, new_upper - exact_upper, kept - exchanged + (new_lower - exact_lower),
    )  # fmt: skip
    return new_upper, new_lower, flows


# ---- plants ------------------------------------------------------------------------------------------------------
@_inline
def plant_day(layer, leaf, day, light, lai_start, dry, cap, foliage, stem, root, store):
    """Litterfall, photosynthesis, respiration, allocation and survival transfer of one layer.

    -> (foliage, stem, root, store, Plant): pools at the end of the day, what moved. dry: in drought; cap: live_part.
    """
    t_foliage = exp(layer.log_q_f * day.q10_surface + day.q10_acclimation)
    t_stem = exp(layer.log_q_c * day.q10_surface + day.q10_acclimation)
    t_root = exp(layer.log_q_r * day.q10_soil + day.q10_acclimation_soil)
    sapwood = live_part(stem, layer.f_sz_s, cap)
    fine_root = live_part(root, layer.f_sz_r, 0.0)
    rate_stem = (layer.rmc_s * sapwood + layer.rmc_h * (stem - sapwood)) / (stem + 1e-5)
    rate_root = (layer.rmr_s * fine_root + layer.rmr_h * (root - fine_root)) / (root + 1e-5)
    store_limit = 0.1 * sapwood + 0.3 * fine_root
    best_lai = target_lai(layer, leaf, day, light, t_stem)

    leaf_fall = (layer.lf0 + (0.012 if dry and lai_start > 0.05 else 0.0)) * foliage
    stem_fall = layer.lc0 * stem
    root_fall = layer.lr0 * root
    foliage -= leaf_fall
    stem -= stem_fall
    root -= root_fall
    lai = layer.lai_per_carbon * foliage

    gpp = canopy_rate(leaf, light, lai) * day.day_length * 4.32e-4
    care_foliage = foliage * layer.rmf0 * t_foliage
    care_stem = stem * rate_stem * t_stem
    care_root = root * rate_root * t_root
    maintenance = care_foliage + care_stem + care_root
    surplus = gpp - maintenance
    growing = surplus > 0.0

    # Far from the target at most 5 percent of the surplus goes to leaves, close to it the whole leaf share, once.
    need = (best_lai - lai) * layer.carbon_per_lai
    most = layer.alloc_ass * surplus
    invested = most if need <= most else _low(need, 0.05 * surplus)
    invested = invested if day.surface_temperature >= layer.tmin else 0.7 * invested
    invested = 0.0 if lai > best_lai else invested
    rest = surplus - invested if growing else (1.0 - layer.alloc_ass) * gpp
    # in deficit each organ pays its own maintenance from its share of the GPP
    to_foliage = invested if growing else layer.alloc_ass * gpp - care_foliage
    to_stem = layer.alloc_abg * rest - (0.0 if growing else care_stem)
    to_root = (1.0 - layer.alloc_abg) * rest - (0.0 if growing else care_root)
    growth_foliage = layer.rgf * to_foliage if growing else 0.0
    growth_stem = layer.rgc * to_stem if growing else 0.0
    growth_root = layer.rgr * to_root if growing else 0.0
    respiration = maintenance + growth_foliage + growth_stem + growth_root

    stored_stem = to_stem if to_stem > 0.0 and store < store_limit else 0.0
    stored_root = to_root if to_root > 0.0 and store + stored_stem < store_limit else 0.0
    foliage_gain = to_foliage - growth_foliage
    stem_gain = (to_stem - stored_stem) - growth_stem
    root_gain = (to_root - stored_root) - growth_root
    store_gain = stored_stem + stored_root
    foliage += foliage_gain
    stem += stem_gain
    root += root_gain

    # Below a tenth of leaf area, stem and root keep the leaves alive, and one dead organ is rebuilt from the other.
    critical = 0.1 * layer.carbon_per_lai
    stem_held, root_held = _high(stem, 0.0), _high(root, 0.0)
    from_stem = critical * layer.alloc_abg * stem_held / (10.0 * critical + stem_held)
    from_root = critical * (1.0 - layer.alloc_abg) * root_held / (5.0 * critical + root_held)
    left_stem, left_root = stem - from_stem, root - from_root
    rebuilt = layer.alloc_abg * left_root if left_stem <= 0.0 and left_root > 0.0 else 0.0
    rebuilt = -(1.0 - layer.alloc_abg) * left_stem if left_root <= 0.0 and left_stem > 0.0 else rebuilt
    rescue = foliage < critical
    foliage_moved = from_stem + from_root if rescue else 0.0
    stem_moved = rebuilt - from_stem if rescue else 0.0
    root_moved = -rebuilt - from_root if rescue else 0.0
    foliage += foliage_moved
    stem += stem_moved
    root += root_moved

    final_foliage = foliage if foliage >= 1e-12 else 0.0
    final_stem = stem if stem >= 1e-12 else 0.0
    final_root = root if root >= 1e-12 else 0.0
    flows = Plant(
        lai_start, gpp, respiration, foliage_gain, stem_gain, root_gain, store_gain, leaf_fall, stem_fall, root_fall,
        foliage_moved, stem_moved, root_moved, final_foliage - foliage, final_stem - stem, final_root - root,
    )  # fmt: skip
    return final_foliage, final_stem, final_root, store + store_gain, flows


# ---- soil carbon -------------------------------------------------------------------------------------------------
@_inline
def moisture_factor(water, capacity, wet, aeration):
    """The smaller of a wetness and an aeration term of decay, dimensionless."""
    air = _clip(1.0 - water / capacity, 0.0, 1.0)
    return _low(0.2 + 0.8 * water / (wet * capacity + water), 0.6 + 0.4 * air * aeration / (aeration + air))


@_inline
def soil_day(ground, soil, day, exporting, tree, c3, s, upper, lower, discharge):
    """Decay of six litter and three humus pools, and the exports of carbon from the active humus.

    -> (nine pools, doc mg L-1, Rh, SoilCarbon). Today's litterfall (of tree and c3) does not decay today. The shares
    f_hm_* are used raw: where they do not add up to 1, VISIT creates or destroys carbon.
    """
    factor_litter = day.decay_upper * moisture_factor(upper, ground.capacity_upper, soil.kml, soil.kmsl)
    factor_humus = day.decay_lower * moisture_factor(lower, ground.capacity_lower, soil.kmh, soil.kmsh)
    k_leaf, k_stem, k_root = (
        soil.sr_lf * factor_litter, soil.sr_lc * factor_litter, soil.sr_lr * factor_litter
    )  # fmt: skip
    decay_1, decay_4 = k_leaf * s.tree_leaf_litter, k_leaf * s.c3_leaf_litter
    decay_2, decay_5 = k_stem * s.tree_stem_litter, k_stem * s.c3_stem_litter
    decay_3, decay_6 = k_root * s.tree_root_litter, k_root * s.c3_root_litter
    decay_a = soil.sr_ha * factor_humus * s.humus_active
    decay_i = soil.sr_hi * factor_humus * s.humus_intermediate
    decay_p = soil.sr_hp * factor_humus * s.humus_passive
    leaf, stem, root = decay_1 + decay_4, decay_2 + decay_5, decay_3 + decay_6
    respired = soil.f_co2_lf * leaf + soil.f_co2_lc * stem + soil.f_co2_lr * root
    humified = (1.0 - soil.f_co2_lf) * leaf + (1.0 - soil.f_co2_lc) * stem + (1.0 - soil.f_co2_lr) * root
    exact_1 = s.tree_leaf_litter + tree.leaf_fall - decay_1
    exact_2 = s.tree_stem_litter + tree.stem_fall - decay_2
    exact_3 = s.tree_root_litter + tree.root_fall - decay_3
    exact_4 = s.c3_leaf_litter + c3.leaf_fall - decay_4
    exact_5 = s.c3_stem_litter + c3.stem_fall - decay_5
    exact_6 = s.c3_root_litter + c3.root_fall - decay_6
    exact_a = s.humus_active + soil.f_hm_a * humified - decay_a
    exact_i = s.humus_intermediate + soil.f_hm_i * humified - decay_i
    exact_p = s.humus_passive + soil.f_hm_p * humified - decay_p
    one, two, three = _high(exact_1, 0.0), _high(exact_2, 0.0), _high(exact_3, 0.0)
    four, five, six = _high(exact_4, 0.0), _high(exact_5, 0.0), _high(exact_6, 0.0)
    active, intermediate, passive = _high(exact_a, 0.0), _high(exact_i, 0.0), _high(exact_p, 0.0)

    # Dissolved carbon after Boyer et al.; exports take no more than there is.
    flush = discharge / lower if lower > 0.0 else 0.0
    doc = s.doc + day.doc_production - day.doc_decay * s.doc - flush * s.doc
    doc = _high(doc, 0.0) if lower > 0.0 else 0.0
    doc_export = _low(1e-5 * doc * discharge, active) if exporting else 0.0
    erosion = _low(day.erosion, active - doc_export) if exporting else 0.0
    flows = SoilCarbon(
        decay_1, decay_2, decay_3, decay_4, decay_5, decay_6, decay_a, decay_i, decay_p,
        one - exact_1, two - exact_2, three - exact_3, four - exact_4, five - exact_5, six - exact_6,
        active - exact_a, intermediate - exact_i, passive - exact_p,
        respired, humified, doc_export, erosion, doc - s.doc, factor_litter, factor_humus,
    )  # fmt: skip
    pools = (one, two, three, four, five, six, active - doc_export - erosion, intermediate, passive)
    return pools, doc, respired + decay_a + decay_i + decay_p, flows


# ---- the ecosystem -----------------------------------------------------------------------------------------------
@_inline
def ecosystem_day(tree, c3, soil, ground, day, exporting, s):
    """One day of one sample: State `s` -> (State, Rh, tree Plant, C3 Plant, SoilCarbon, Water).

    Order as in VISIT: light on yesterday's leaves, water with yesterday's conductance, leaves, trees, floor, soil.
    """
    lai_tree = tree.lai_per_carbon * s.tree_foliage
    lai_c3 = c3.lai_per_carbon * s.c3_foliage
    absorbed_tree = 1.0 - exp(-0.9 * tree.ek0 * day.path * lai_tree)
    absorbed_c3 = (1.0 - absorbed_tree) * (1.0 - 0.9 * exp(-c3.ek0 * day.path * lai_c3))
    absorbed_soil = 1.0 - absorbed_tree - absorbed_c3
    cover_tree = 1.0 - exp(-tree.ek0 * lai_tree)
    cover_c3 = (1.0 - cover_tree) * (1.0 - exp(-c3.ek0 * lai_c3))
    light_tree = day.light_canopy
    light_c3 = day.light_canopy * (1.0 - absorbed_tree)
    albedo_soil = _clip(soil.albedo0 + (0.7 - soil.albedo0) / (1.0 + 33.11545195869231), 0.05, 0.7)  # exp(3.5): no snow
    rn_tree = day.shortwave * absorbed_tree * (1.0 - tree.albedo) - cover_tree * day.longwave
    rn_c3 = day.shortwave * absorbed_c3 * (1.0 - c3.albedo) - cover_c3 * day.longwave
    rn_soil = day.shortwave * absorbed_soil * (1.0 - albedo_soil) - (1.0 - cover_tree - cover_c3) * day.longwave
    upper, lower, water = water_day(
        ground, day, s.water_upper, s.water_lower, lai_tree, lai_c3, rn_tree, rn_c3, rn_soil,
        s.tree_conductance, s.c3_conductance,
    )  # fmt: skip
    leaf_tree = leaf_physiology(tree, day, lower, ground.capacity_lower)
    leaf_c3 = leaf_physiology(c3, day, lower, ground.capacity_lower)
    g_tree = tree.gs_b0 * lai_tree + leaf_tree.stomatal_slope * canopy_rate(leaf_tree, light_tree, lai_tree)
    g_c3 = c3.gs_b0 * lai_c3 + leaf_c3.stomatal_slope * canopy_rate(leaf_c3, light_c3, lai_c3)
    dry = lower < ground.drought_water and day.air_temperature > -5.0
    foliage_tree, stem_tree, root_tree, store_tree, plant_tree = plant_day(
        tree, leaf_tree, day, light_tree, lai_tree, dry, ground.sapwood_cap,
        s.tree_foliage, s.tree_stem, s.tree_root, s.tree_store,
    )  # fmt: skip
    foliage_c3, stem_c3, root_c3, store_c3, plant_c3 = plant_day(
        c3, leaf_c3, day, light_c3, lai_c3, dry, ground.sapwood_cap,
        s.c3_foliage, s.c3_stem, s.c3_root, s.c3_store,
    )  # fmt: skip
    pools, doc, rh, carbon = soil_day(
        ground, soil, day, exporting, plant_tree, plant_c3, s, upper, lower, water.discharge
    )
    state = State(
        foliage_tree, stem_tree, root_tree, store_tree, foliage_c3, stem_c3, root_c3, store_c3,
        pools[0], pools[1], pools[2], pools[3], pools[4], pools[5], pools[6], pools[7], pools[8],
        doc, upper, lower, g_tree, g_c3,
    )  # fmt: skip
    return state, rh, plant_tree, plant_c3, carbon, water
