"""Does everything that enters leave or stay? Carbon and water budgets of a simulation, day by day and pool by pool.

Each function takes a SimulationResult of simulate(..., keep_pools=True) and returns what does not add up, which is
rounding error. Terms in which VISIT itself creates or destroys matter carry a name (see `unphysical`).
"""

from collections.abc import Mapping

import numpy as np

from calibration.visit.layout import DOC, FLOWS, LITTER, STATE
from calibration.visit.simulator import SimulationResult

ORGANS = ("foliage", "stem", "root")
LITTER_KINDS = ("leaf", "stem", "root")
HUMUS_SHARES = {"humus_active": "soil_f_hm_a", "humus_intermediate": "soil_f_hm_i", "humus_passive": "soil_f_hm_p"}


def _flow(result: SimulationResult, name: str) -> np.ndarray:
    """(run, day) of one flow."""
    return result.flows[:, :, FLOWS.index(name)]


def _pool(result: SimulationResult, name: str) -> np.ndarray:
    """(run, day + 1) of one pool: at the start, then at the end of each day."""
    i = STATE.index(name)
    return np.concatenate([result.spinup_state[:, None, i], result.pools[:, :, i]], axis=1)


def _change(result: SimulationResult, name: str) -> np.ndarray:
    return np.diff(_pool(result, name), axis=1)


def carbon_residuals(result: SimulationResult, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Change minus gains plus losses of every carbon pool, (run, day) Mg C ha-1 each; and of the whole ecosystem.

    parameters: physical values (run,) by catalogue name, as returned by visit_simulator.parameter_values. The entry
    "ecosystem" compares the change of all pools with NEP = GPP - ER, exports and the unphysical terms.
    """
    residuals = {}
    for layer in ("tree", "c3"):
        for organ, kind in zip(ORGANS, LITTER_KINDS, strict=True):
            gains = sum(_flow(result, f"{layer}_{organ}_{what}") for what in ("gain", "moved", "cleaned"))
            fall = _flow(result, f"{layer}_{kind}_fall")
            residuals[f"{layer}_{organ}"] = _change(result, f"{layer}_{organ}") - gains + fall
            litter = f"{layer}_{kind}_litter"
            gains = fall + _flow(result, f"{litter}_floored")
            residuals[litter] = _change(result, litter) - gains + _flow(result, f"{litter}_decay")
        residuals[f"{layer}_store"] = _change(result, f"{layer}_store") - _flow(result, f"{layer}_store_gain")
        moved = sum(_flow(result, f"{layer}_{organ}_moved") for organ in ORGANS)
        gained = sum(_flow(result, f"{layer}_{organ}_gain") for organ in (*ORGANS, "store"))
        residuals[f"{layer}_transfer"] = moved
        residuals[f"{layer}_npp"] = _flow(result, f"{layer}_gpp") - _flow(result, f"{layer}_respiration") - gained
    for pool, share in HUMUS_SHARES.items():
        gains = parameters[share][:, None] * _flow(result, "humified") + _flow(result, f"{pool}_floored")
        losses = _flow(result, f"{pool}_decay")
        if pool == "humus_active":
            losses = losses + _flow(result, "doc_export") + _flow(result, "erosion")
        residuals[pool] = _change(result, pool) - gains + losses
    decayed = sum(_flow(result, f"{pool}_decay") for pool in STATE[LITTER : LITTER + 6])
    residuals["litter_split"] = decayed - _flow(result, "litter_respiration") - _flow(result, "humified")
    residuals["doc"] = _change(result, "doc") - _flow(result, "doc_gain")
    total = sum(_change(result, pool) for pool in STATE[:DOC])
    exports = _flow(result, "doc_export") + _flow(result, "erosion")
    created = sum(unphysical(result, parameters).values())
    residuals["ecosystem"] = total - (result.gpp - result.er) + exports - created
    return residuals


def unphysical(result: SimulationResult, parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Carbon that VISIT creates (> 0) or destroys, by cause, (run, day) Mg C ha-1 day-1.

    humification_imbalance: the shares f_hm_* are not made to add up to 1; cleaned: plant pools below 1e-12 (or
    negative) are set to 0; floored: soil pools below 0 are set to 0.
    """
    shares = sum(parameters[share] for share in HUMUS_SHARES.values())[:, None]
    return {
        "humification_imbalance": (shares - 1.0) * _flow(result, "humified"),
        "cleaned": sum(_flow(result, f"{layer}_{organ}_cleaned") for layer in ("tree", "c3") for organ in ORGANS),
        "floored": sum(_flow(result, f"{pool}_floored") for pool in STATE[LITTER:DOC]),
    }


def water_residuals(result: SimulationResult) -> dict[str, np.ndarray]:
    """Change minus gains plus losses of the two soil buckets and their sum, (run, day) mm.

    Rain = evapotranspiration + discharge + change + the base flow that VISIT takes from the lower bucket a second time
    without letting it leave (base_flow, about 165 mm a year at LHP), less water created by floors at 0.
    """
    flow = {name: _flow(result, name) for name in FLOWS[FLOWS.index("rain") :]}
    upper = flow["rain"] - flow["interception"] - flow["soil_evaporation"] - flow["c3_transpiration"]
    upper = upper - flow["upper_outflow"] + flow["exchange"] + flow["upper_floored"]
    lower = flow["upper_outflow"] - flow["exchange"] - flow["tree_transpiration"]
    lower = lower - flow["discharge"] - flow["base_flow"] + flow["lower_floored"]
    evapotranspiration = sum(
        flow[name] for name in ("interception", "soil_evaporation", "c3_transpiration", "tree_transpiration")
    )
    change_upper, change_lower = _change(result, "water_upper"), _change(result, "water_lower")
    created = flow["upper_floored"] + flow["lower_floored"] - flow["base_flow"]
    return {
        "water_upper": change_upper - upper,
        "water_lower": change_lower - lower,
        "total": change_upper + change_lower - (flow["rain"] - evapotranspiration - flow["discharge"]) - created,
    }
