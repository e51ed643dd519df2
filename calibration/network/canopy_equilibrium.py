"""VISIT's carbon cycle at rest, in closed form: where a run will settle, and a first guess of its daily fluxes.

The emulator has to learn how 36 parameters and the weather set a forest's fluxes, from a few hundred runs. Much of
that is known without running the model: leaf area follows Kuroiwa's optimum on bright days, canopy photosynthesis has
a closed form, and at steady state stem and root gain what they lose. `at_rest` solves for the pools under a sample of
typical days; `first_guess` holds them fixed and computes each day's fluxes. The network gets both and learns what they
miss: soil water, the pools' own history, day length, allocation. Everything is differentiable, as an inversion needs.

Sources: Kuroiwa (1966) and Monsi & Saeki (1953) for the canopy; Leuning (1995) for stomata; Raich et al. (1991) for the
temperature response; Lloyd & Taylor (1994) for soil respiration; Ito & Oikawa (2002, Ecological Modelling 151, 143-176)
for the model as a whole.
"""

import math

import torch

from calibration.network.leaf_weather import Days
from calibration.network.soil_water import DENSE, OPEN

OPEN_AREA, DENSE_AREA = OPEN.leaf_area[0], DENSE.leaf_area[0]
UMOL_HOURS_TO_MG_HA = 4.32e-4  # umol m-2 s-1 during 1 h -> Mg C ha-1
LEAF_SHARE = 0.05  # of the surplus, at most, goes to leaves while leaf area is far below its target
LEAF_AREAS = torch.logspace(math.log10(0.03), math.log10(12.0), 27)  # m2 m-2, grid of the search for leaf area at rest
REFINEMENTS = (8, 4)  # parts into which the cell of the grid that holds the leaf area at rest is cut, again and again
FAST_WOOD = 3.0  # turnovers of stem while leaf area grows e-fold; right for 15 of 16 layers with two zeros
LOWEST_AREA = 0.118  # m2 m-2, of a layer that cannot live (VISIT keeps seedlings)
LITTER = ("lf", "lc", "lr")
LAYERS = ("tree", "c3")
LAYER_PARAMETERS = (
    "alloc_ass", "alloc_abg", "sla", "ek0", "lue", "pmax", "topt", "tmin", "tmax", "gs_b0", "gs_b1", "gs_b2",
    "km_nstl", "kmci", "cmpcd0", "rgf", "rgc", "rgr", "rmf0", "rmc_s", "rmr_s", "rmc_h", "rmr_h", "qTf0", "qTc0",
    "qTr0", "f_sz_s", "f_sz_r", "lf0", "lc0", "lr0",
)  # fmt: skip
PARAMETERS = (
    tuple(f"{layer}_{name}" for layer in LAYERS for name in LAYER_PARAMETERS)
    + tuple(f"soil_{kind}_{pool}" for kind in ("f_co2", "sr") for pool in LITTER)
    + ("soil_kml", "soil_kmsl", "soil_kmh", "soil_kmsh")
)
# What first_guess() needs of the pools at rest, by layer: leaf area, share of the light that reaches the layer,
# foliage, upkeep of stem and root at 15 deg C, construction respiration as a share of the surplus.
LAYER_REST = ("leaf_area", "shade", "foliage", "stem_upkeep", "root_upkeep", "growth")
REST = (*(f"{layer}_{name}" for layer in LAYERS for name in LAYER_REST), "respired", "humified")
GUESSES = 6  # columns of first_guess()
CLOSED_FORMS = 2  # counts changes of the formulas; 2: forests of fast wood (_as_reached)
Parameters = dict[str, torch.Tensor]


def _water(days: Days, leaf_area=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Filling of upper and lower bucket (B or 1, n) at the trees' leaf area (B, 1); None: between open and dense."""
    opened, dense = days.water.unbind(dim=-2)
    share = (
        0.5 if leaf_area is None else ((leaf_area - OPEN_AREA) / (DENSE_AREA - OPEN_AREA)).clamp(-0.2, 1.3)[..., None]
    )
    return tuple((opened + share * (dense - opened)).clamp(0.05, 1.0).unbind(dim=-1))


def _moisture(water, wetness, aeration) -> torch.Tensor:
    """Moisture response of decomposition: the smaller of a wetness and an aeration term."""
    air = 1 - water
    return torch.minimum(0.2 + 0.8 * water / (wetness + water), 0.6 + 0.4 * air * aeration / (aeration + air))


def _decay(p: Parameters, days: Days, leaf_area) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative speed of litter and humus decomposition (B, n)."""
    upper, lower = _water(days, leaf_area)
    litter = _lloyd_taylor(days.soil) * _moisture(upper, p["soil_kml"], p["soil_kmsl"])
    return litter, _lloyd_taylor(days.deep) * _moisture(lower, p["soil_kmh"], p["soil_kmsh"])


def _leaf(p: Parameters, days: Days, lower_water: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Light-saturated rate (umol m-2 s-1) and quantum yield after six passes for intercellular CO2, as VISIT."""
    surface = days.surface
    inside = 0.7 * days.co2
    warm = surface - 20
    compensation = p["cmpcd0"] * (1 + 0.0451 * warm + 0.000347 * warm**2).clamp(min=0.0)
    water = 0.05 + 0.95 * lower_water / (lower_water + p["km_nstl"])
    hot_cold = (surface - p["tmax"]) * (surface - p["tmin"])
    heat_yield = p["lue"] * (52 - surface) / (3.5 + 0.75 * (52 - surface))
    slope = p["gs_b1"] / ((days.co2 - compensation).clamp(min=10.0) * (1 + days.vpd / p["gs_b2"]))
    for _ in range(6):
        yield_ = heat_yield * inside / (90 + 0.6 * inside)
        below = hot_cold - (surface - p["topt"] - 0.01 * inside) ** 2
        # Above tmax both are positive and VISIT's leaf works at full rate: kept, as it is VISIT's.
        heat = (hot_cold / torch.where(below.abs() < 1e-3, -1e-3 * torch.ones_like(below), below)).clamp(0.0, 1.0)
        carbon = (0.30 + 0.70 * (inside - compensation) / (p["kmci"] + inside)).clamp(0.0, 1.0)
        saturated = (p["pmax"] * water * heat * carbon).clamp(min=1e-6)
        supply = yield_ * days.top_light
        rate = saturated * supply / (saturated + supply)
        inside = torch.minimum((days.co2 - 1560 * rate / (p["gs_b0"] + slope * rate)).clamp(min=1.0), days.co2)
    return saturated, yield_


def _extinction(p: Parameters, days: Days) -> torch.Tensor:
    """Attenuation of light by leaf area at noon."""
    return p["ek0"] / days.height.clamp(0.3, 1.0)


def _target_leaf_area(p: Parameters, days: Days, saturated, yield_, light, stem_q10) -> torch.Tensor:
    """Kuroiwa's optimal leaf area, m2 m-2; the mixed units of the cost are VISIT's own."""
    cost = 22000 / p["sla"] * (p["rmf0"] / 1000 * stem_q10 + p["lf0"] * (1 + p["rgf"]))
    gain = saturated * days.length
    net = gain - 24 * cost
    break_even = saturated * (gain / net.clamp(min=0.02) - 1)
    k = _extinction(p, days)
    best = torch.log((k * yield_ * light / break_even.clamp(min=1e-6)).clamp(min=1.02)) / k
    return torch.where(net > 0, best, torch.zeros_like(best))


def _photosynthesis(k, length, saturated, yield_, light, leaf_area) -> torch.Tensor:
    """Daily canopy photosynthesis, Mg C ha-1 day-1: Beer's law (extinction k), hyperbolic leaves, sin^2 course of the
    day of `length` hours."""
    b = k * yield_ * light / saturated
    depth = (1 + torch.sqrt(1 + b)) / (1 + torch.sqrt(1 + b * torch.exp(-k * leaf_area)))
    return 2 * saturated / k * torch.log(depth) * length * UMOL_HOURS_TO_MG_HA


def _q10(p: Parameters, organ: str, days: Days) -> torch.Tensor:
    """Temperature multiplier of maintenance (reference 15 deg C), with VISIT's acclimation."""
    base = p[f"qT{organ}0"] * torch.exp(-0.009 * (days.surface - 15))
    return base ** (((days.soil if organ == "r" else days.surface) - 15) / 10)


def _lloyd_taylor(temperature: torch.Tensor) -> torch.Tensor:
    """Temperature response of decomposition around 10 deg C."""
    warm = torch.exp(308.56 * (1 / 56.02 - 1 / (temperature.clamp(min=-20.0) + 46.02)))
    return 0.01 + torch.where(temperature > -20.0, warm, torch.zeros_like(warm))


def _wood(p: Parameters, surplus, foliage_share) -> tuple[torch.Tensor, ...]:
    """Stem and root (Mg C ha-1) that a mean surplus sustains, and their upkeep at 15 deg C (Mg C ha-1 day-1).

    p needs _wood_shares().
    """
    wood = (1 - foliage_share) * surplus
    stem = (p["to_stem"] * wood / p["lc0"]).clamp(min=1e-3)
    root = (p["to_root"] * wood / p["lr0"]).clamp(min=1e-3)
    sapwood = stem ** (1 - 0.33334 * stem / (p["f_sz_s"] + stem))  # above the pool where that is small, as in VISIT
    fine = root ** (1 - 0.33334 * root / (p["f_sz_r"] + root))
    stem_upkeep = (p["rmc_s"] * sapwood + p["rmc_h"] * (stem - sapwood)) / 1000
    root_upkeep = (p["rmr_s"] * fine + p["rmr_h"] * (root - fine)) / 1000
    return stem, root, stem_upkeep, root_upkeep


def _wood_shares(p: Parameters) -> Parameters:
    """Shares of the wood's surplus that become stem and root; once, as _wood() runs hundreds of times."""
    return {"to_stem": (1 - p["rgc"]) * p["alloc_abg"], "to_root": (1 - p["rgr"]) * (1 - p["alloc_abg"])}


def layer_parameters(parameters: Parameters, layer: str) -> Parameters:
    """Parameters (B, 1) of one layer without its prefix."""
    return {name: parameters[f"{layer}_{name}"] for name in LAYER_PARAMETERS}


def _surplus(p: Parameters, gpp, leaf_upkeep, foliage, stem_warmth, root_warmth) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean surplus at rest (Mg C ha-1 day-1) of given mean GPP and foliage, and the share of it that replaces
    leaves.
    """
    replaced = p["lf0"] * foliage / (1 - p["rgf"])

    def share(y):
        """Share of the surplus y (Mg C ha-1 day-1) that replaces leaves, 0 to 0.6."""
        return (replaced / y).clamp(0.0, 0.6)

    def excess(y):
        """GPP less all upkeep less y, Mg C ha-1 day-1: zero where y is the surplus at rest."""
        _, _, stem_upkeep, root_upkeep = _wood(p, y, share(y))
        return gpp - leaf_upkeep - stem_upkeep * stem_warmth - root_upkeep * root_warmth - y

    # Y solves Y = GPP - upkeep of the leaves - upkeep of the wood that Y sustains. The right side falls with Y, so
    # Newton's steps converge; the slope is a difference quotient and needs no gradient of its own.
    y = 0.5 * gpp
    for _ in range(6):
        here = excess(y)
        with torch.no_grad():
            slope = ((excess(y * 1.01) - here) / (0.01 * y)).clamp(max=-0.5)
        y = torch.maximum(y - here / slope, 0.02 * gpp)
    return y, share(y)


def _as_reached(gains: torch.Tensor, stem_turnover: torch.Tensor) -> torch.Tensor:
    """Gains (B, area) day-1 on LEAF_AREAS, set to a loss above the first zero where the wood turns over so fast
    (stem_turnover (B, 1) day-1) that it is full-grown at every leaf area the forest passes on its way up."""
    grown = LEAF_AREAS.to(gains.device) > LOWEST_AREA  # smaller ones are kept alive by VISIT
    passed = ((gains <= 0) & grown).cumsum(dim=1) == 0
    fastest = torch.where(passed & grown, gains, 0.0).amax(dim=1, keepdim=True)  # 0: cannot grow from a seedling
    stuck = (fastest > 0) & (stem_turnover > FAST_WOOD * fastest)
    return torch.where(stuck & ~passed, -gains.abs(), gains)


def _leaf_area_at_rest(p: Parameters, days: Days, saturated, yield_, light, target, warmth: Parameters) -> torch.Tensor:
    """Leaf area (B, 1), m2 m-2, at which a run of days (B, n) gains as much foliage as it loses.

    The gain is computed on a grid. The highest zero is where a forest settles that was lusher before its wood had
    grown; where wood turns over faster than leaves grow there was no such time, and it is the first zero from below.
    The cell that holds it is cut into finer grids, as the gain is far from straight in it: an interpolation would
    bend at every grid point, and with it all that the emulator makes of it. No zero: the layer is dead.
    """
    k, length = _extinction(p, days)[..., None], days.length[..., None]
    p = {name: value[..., None] for name, value in p.items()}  # (B, 1, 1): parameter vector, day, leaf area
    saturated, yield_, light, target = (x[..., None] for x in (saturated, yield_, light, target))
    warm = {organ: value[..., None] for organ, value in warmth.items()}
    mean = {organ: value.mean(dim=1, keepdim=True) for organ, value in warm.items()}

    def gain(area: torch.Tensor) -> torch.Tensor:
        """Growth per foliage and day (B, area) at leaf areas (B or 1, area), m2 m-2.

        Leaves get LEAF_SHARE of the surplus on days whose target is above the leaf area, lose lf0 every day, and pay
        for themselves on days without surplus.
        """
        area = area[:, None, :]
        foliage = area / (p["sla"] * 2.2 / 200)
        gpp = _photosynthesis(k, length, saturated, yield_, light, area)
        leaf_upkeep = foliage * p["rmf0"] / 1000 * warm["f"]
        surplus, share = _surplus(
            p, gpp.mean(dim=1, keepdim=True), leaf_upkeep.mean(dim=1, keepdim=True), foliage, mean["c"], mean["r"]
        )
        _, _, stem_upkeep, root_upkeep = _wood(p, surplus, share)
        daily = gpp - leaf_upkeep - stem_upkeep * warm["c"] - root_upkeep * warm["r"]
        surplus_today, need = daily.clamp(min=0.0), target - area
        wanted = torch.sigmoid(need / (0.02 + 0.02 * area))
        last_step = p["alloc_ass"] * surplus_today * p["sla"] * 2.2 / 200  # leaf area that the whole leaf share buys
        width = 0.01 + 0.1 * last_step
        close = torch.sigmoid(need / width) * torch.sigmoid((last_step - need) / width)
        leaf_share = LEAF_SHARE * wanted + (p["alloc_ass"] - LEAF_SHARE) * close
        growth = leaf_share * (1 - p["rgf"]) * surplus_today
        hunger = torch.sigmoid(-daily / (0.03 * gpp)) * (p["alloc_ass"] * gpp - leaf_upkeep)
        return ((growth + hunger).mean(dim=1) - (p["lf0"] * foliage)[:, 0]) / foliage[:, 0]

    def highest_zero(logarithm: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cell (B, 1) each: log area and gain on both sides of the highest change from gain to loss."""
        step = torch.arange(values.shape[1], device=values.device)
        last = torch.where(values > 0, step, 0).amax(dim=1, keepdim=True).clamp(max=len(step) - 2)
        logarithm = logarithm.expand_as(values)
        return tuple(x.gather(1, last + i) for x in (logarithm, values) for i in (0, 1))

    grid = torch.log(LEAF_AREAS.to(light.device))[None]
    values = gain(torch.exp(grid))
    low, high, before, after = highest_zero(grid, _as_reached(values, p["lc0"][..., 0]))
    for parts in REFINEMENTS:
        inner = torch.arange(1, parts, device=light.device) / parts
        finer = torch.cat([low, low + (high - low) * inner, high], dim=1)
        values = torch.cat([before, gain(torch.exp(finer[:, 1:-1])), after], dim=1)
        low, high, before, after = highest_zero(finer, values)
    position = (before / (before - after).clamp(min=1e-12)).clamp(0.0, 1.0)
    area = torch.exp(low + (high - low) * position)
    return (area**4 + LOWEST_AREA**4) ** 0.25  # a rounded corner where the layer dies


def _once_each(p: Parameters, shade: torch.Tensor) -> tuple[Parameters, torch.Tensor, torch.Tensor | None]:
    """Each different row of one layer's parameters and its light (B, 1) once, and where (B,) each row's result is.

    An inversion's slopes move one parameter at a time: most rows of a batch repeat a layer. None: all as they are.
    """
    if torch.is_grad_enabled() or len(shade) < 2:
        return p, shade, None
    table, place = torch.unique(torch.cat([*p.values(), shade], dim=-1), dim=0, return_inverse=True)
    columns = table.split(1, dim=-1)
    return dict(zip(p, columns[:-1], strict=True)), columns[-1], place


def _layer_at_rest(p: Parameters, days: Days, shade: torch.Tensor) -> tuple[Parameters, Parameters]:
    """One layer at rest: LAYER_REST, and features, (B, 1) by name; p (B, 1) without prefix, shade (B, 1) as in REST."""
    p = p | _wood_shares(p)
    light = days.light * shade
    saturated, yield_ = _leaf(p, days, _water(days)[1])
    warmth = {organ: _q10(p, organ, days) for organ in "fcr"}
    mean = {organ: value.mean(dim=-1, keepdim=True) for organ, value in warmth.items()}
    target = _target_leaf_area(p, days, saturated, yield_, light, warmth["c"])
    leaf_area = _leaf_area_at_rest(p, days, saturated, yield_, light, target, warmth)
    gpp_days = _photosynthesis(_extinction(p, days), days.length, saturated, yield_, light, leaf_area)
    gpp = gpp_days.mean(dim=-1, keepdim=True)
    foliage = leaf_area / (p["sla"] * 2.2 / 200)
    leaf_upkeep = foliage * p["rmf0"] / 1000 * warmth["f"]
    surplus, share = _surplus(p, gpp, leaf_upkeep.mean(dim=-1, keepdim=True), foliage, mean["c"], mean["r"])
    stem, root, stem_upkeep, root_upkeep = _wood(p, surplus, share)
    wood_growth = p["rgc"] * p["alloc_abg"] + p["rgr"] * (1 - p["alloc_abg"])
    growth = p["rgf"] * share + (1 - share) * wood_growth
    daily = gpp_days - leaf_upkeep - stem_upkeep * warmth["c"] - root_upkeep * warmth["r"]
    npp = surplus - (growth * daily.clamp(min=0.0)).mean(dim=-1, keepdim=True)
    values = (leaf_area, shade, foliage, stem_upkeep, root_upkeep, growth)
    return dict(zip(LAYER_REST, values, strict=True)), {
        "leaf_area": leaf_area, "log_leaf_area": torch.log(leaf_area),
        "bright_target": target.topk(max(1, target.shape[-1] // 16), dim=-1).values.mean(-1, keepdim=True),
        "mean_target": target.mean(dim=-1, keepdim=True), "gpp": gpp, "npp": npp,
        "saturated": saturated.mean(dim=-1, keepdim=True), "log_gpp": torch.log(gpp),
        "leaf_upkeep": leaf_upkeep.mean(dim=-1, keepdim=True), "growth": growth,
        "stem_upkeep": stem_upkeep * mean["c"], "root_upkeep": root_upkeep * mean["r"],
        "log_stem": torch.log(stem), "log_root": torch.log(root), "log_foliage": torch.log(foliage),
        "shed_lf": p["lf0"] * foliage, "shed_lc": p["lc0"] * stem, "shed_lr": p["lr0"] * root,
    }  # fmt: skip


def at_rest(parameters: Parameters, days: Days) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pools at rest under typical days (1, n), from physical parameters (B, 1) by full name (all of PARAMETERS).

    Returns what first_guess() needs, (B, len(REST) + len(PARAMETERS)), and features (B,) by name. Pools in Mg C ha-1,
    fluxes and upkeep in Mg C ha-1 day-1, leaf area in m2 m-2.
    """
    rest: Parameters = {}
    features: dict[str, torch.Tensor] = {}
    shade = torch.ones_like(parameters["tree_sla"])
    litter = dict.fromkeys(LITTER, 0.0)
    for layer in LAYERS:
        p, light, place = _once_each(layer_parameters(parameters, layer), shade)
        settled, found = _layer_at_rest(p, days, light)
        if place is not None:
            settled, found = ({name: value[place] for name, value in of.items()} for of in (settled, found))
        rest |= {f"{layer}_{name}": value for name, value in settled.items()}
        features |= {f"{layer}_{name}": value for name, value in found.items()}
        litter = {pool: litter[pool] + found[f"shed_{pool}"] for pool in LITTER}
        # light that the trees leave to the floor
        shade = shade * torch.exp(-0.9 * parameters[f"{layer}_ek0"] * settled["leaf_area"])
    respired = {pool: parameters[f"soil_f_co2_{pool}"] * amount for pool, amount in litter.items()}
    rest["respired"] = sum(respired.values())  # by litter itself
    rest["humified"] = sum(litter.values()) - rest["respired"]  # handed on to humus, which respires it later
    features |= {f"respired_{pool}": amount for pool, amount in respired.items()}
    features |= {f"stock_{pool}": torch.log(a / parameters[f"soil_sr_{pool}"]) for pool, a in litter.items()}
    features |= {name: features[f"tree_{name}"] + features[f"c3_{name}"] for name in ("gpp", "npp")}
    features |= {"respired": rest["respired"], "humified": rest["humified"]}
    packed = torch.cat([rest[name] for name in REST] + [parameters[name] for name in PARAMETERS], dim=-1)
    return packed, {name: value.squeeze(-1) for name, value in features.items()}


def first_guess(packed: torch.Tensor, days: Days, typical: Days) -> torch.Tensor:
    """Daily fluxes with the pools held at rest: packed from at_rest(), days (1 or B, T), typical days behind it (1, n).

    Returns (B, T, 6): GPP, NPP, NEP, Rh (units.TARGETS), then GPP and upkeep of the trees; Mg C ha-1 day-1.
    """
    values = dict(zip((*REST, *PARAMETERS), packed.split(1, dim=-1), strict=True))
    gpp = npp = 0.0
    lower_water = _water(days, values["tree_leaf_area"])[1]
    for layer in reversed(LAYERS):  # trees last: their parts are wanted alone
        p = layer_parameters(values, layer)
        leaf_area, shade, foliage, stem_upkeep, root_upkeep, growth = (values[f"{layer}_{name}"] for name in LAYER_REST)
        saturated, yield_ = _leaf(p, days, lower_water)
        k = _extinction(p, days)
        layer_gpp = _photosynthesis(k, days.length, saturated, yield_, days.light * shade, leaf_area)
        upkeep = foliage * p["rmf0"] / 1000 * _q10(p, "f", days)
        upkeep = upkeep + stem_upkeep * _q10(p, "c", days) + root_upkeep * _q10(p, "r", days)
        surplus = layer_gpp - upkeep
        gpp = gpp + layer_gpp
        npp = npp + surplus - growth * surplus.clamp(min=0.0)
    speed, usual = (_decay(values, of, values["tree_leaf_area"]) for of in (days, typical))
    litter, humus = (now / mean.mean(dim=-1, keepdim=True) for now, mean in zip(speed, usual, strict=True))
    rh = values["respired"] * litter + values["humified"] * humus
    return torch.stack([gpp, npp, npp - rh, rh, layer_gpp, upkeep], dim=-1)
