"""The compiled loop of the process model: LANES samples side by side, day after day.

A processor core does the same arithmetic on eight numbers in one instruction. The innermost loop therefore runs over
eight samples, and its body (visit/physics.py) is written so that the compiler can turn it into such instructions; on a
processor without them it runs the same way, slower, with the same bits in the result.
"""

import hashlib
from pathlib import Path

import numpy as np
from numba import njit

from calibration.visit import CACHE, vector_math
from calibration.visit import forcing as visit_forcing
from calibration.visit import layout as visit_layout
from calibration.visit import physics as visit_physics
from calibration.visit.forcing import Day
from calibration.visit.layout import C3_ROW, FLOWS, FLUXES, SOIL_ROW, STATE, Ground, Layer, Soil, State
from calibration.visit.physics import _inline, ecosystem_day

LANES = 8
NEVER = np.iinfo(np.int64).max
TODAY = len(FLUXES) + 3  # numbers kept of a day: fluxes, two factors of decay, active humus
_compile = njit(cache=CACHE, nogil=True, error_model="numpy")


def _version() -> int:
    """Number that changes with the source of everything that is inlined below.

    Numba's cache on disk looks only at the file of the cached function, and would keep running code compiled from an
    older visit/physics.py. The default of an argument belongs to the function's type, and so to the cache's key.
    """
    files = (module.__file__ for module in (vector_math, visit_forcing, visit_layout, visit_physics))
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).digest()
    return int.from_bytes(digest[:6], "little")


VERSION = _version()


def lanes(rows: np.ndarray) -> np.ndarray:
    """(sample <= LANES, column) -> (column * LANES,): one column after another; the last sample fills empty lanes."""
    padded = rows[np.minimum(np.arange(LANES), len(rows) - 1)]
    return np.ascontiguousarray(padded.T).ravel()


def samples(flat: np.ndarray) -> np.ndarray:
    """(column * LANES,) -> (LANES, column), a view on the same memory."""
    return flat.reshape(-1, LANES).T


@_inline
def _layer(p, i):
    """Layer of the sample whose first parameter is p[i]."""
    return Layer(
        p[i], p[i + LANES], p[i + 2 * LANES], p[i + 3 * LANES], p[i + 4 * LANES], p[i + 5 * LANES], p[i + 6 * LANES],
        p[i + 7 * LANES], p[i + 8 * LANES], p[i + 9 * LANES], p[i + 10 * LANES], p[i + 11 * LANES],
        p[i + 12 * LANES], p[i + 13 * LANES], p[i + 14 * LANES], p[i + 15 * LANES], p[i + 16 * LANES],
        p[i + 17 * LANES], p[i + 18 * LANES], p[i + 19 * LANES], p[i + 20 * LANES], p[i + 21 * LANES],
        p[i + 22 * LANES], p[i + 23 * LANES], p[i + 24 * LANES], p[i + 25 * LANES], p[i + 26 * LANES],
        p[i + 27 * LANES], p[i + 28 * LANES], p[i + 29 * LANES], p[i + 30 * LANES], p[i + 31 * LANES],
        p[i + 32 * LANES], p[i + 33 * LANES], p[i + 34 * LANES],
    )  # fmt: skip


@_inline
def _soil(p, i):
    return Soil(
        p[i], p[i + LANES], p[i + 2 * LANES], p[i + 3 * LANES], p[i + 4 * LANES], p[i + 5 * LANES], p[i + 6 * LANES],
        p[i + 7 * LANES], p[i + 8 * LANES], p[i + 9 * LANES], p[i + 10 * LANES], p[i + 11 * LANES],
        p[i + 12 * LANES], p[i + 13 * LANES], p[i + 14 * LANES], p[i + 15 * LANES], p[i + 16 * LANES],
    )  # fmt: skip


@_inline
def _state(s, i):
    return State(
        s[i], s[i + LANES], s[i + 2 * LANES], s[i + 3 * LANES], s[i + 4 * LANES], s[i + 5 * LANES], s[i + 6 * LANES],
        s[i + 7 * LANES], s[i + 8 * LANES], s[i + 9 * LANES], s[i + 10 * LANES], s[i + 11 * LANES],
        s[i + 12 * LANES], s[i + 13 * LANES], s[i + 14 * LANES], s[i + 15 * LANES], s[i + 16 * LANES],
        s[i + 17 * LANES], s[i + 18 * LANES], s[i + 19 * LANES], s[i + 20 * LANES], s[i + 21 * LANES],
    )  # fmt: skip


@_inline
def _day(d):
    return Day(
        d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12], d[13], d[14], d[15], d[16],
        d[17], d[18], d[19], d[20], d[21], d[22], d[23], d[24], d[25], d[26], d[27],
    )  # fmt: skip


@_compile
def _record(happened, k, tree, c3, carbon, water):
    row = 0
    for j in range(len(tree)):
        happened[row * LANES + k] = tree[j]
        row += 1
    for j in range(len(c3)):
        happened[row * LANES + k] = c3[j]
        row += 1
    for j in range(len(carbon)):
        happened[row * LANES + k] = carbon[j]
        row += 1
    for j in range(len(water)):
        happened[row * LANES + k] = water[j]
        row += 1


@_compile
def run_days(
    parameters, ground_values, days, state, exports_from, water_only, fluxes, pools, drive, flows, version=VERSION
):
    """Run up to LANES samples over `days`, updating `state` in place.

    parameters, state: from lanes(); ground_values: layout.ground_row; days: (day, forcing) of DailyForcing.days;
    exports_from: (sample,) int64, index of the first day on which DOC and erosion leave the active humus; its length is
    the number of samples, LANES or 1 (others are slow); water_only: hold all carbon and DOC.
    Filled unless empty: fluxes (sample, day, 5) in the order of FLUXES, pools (sample, day, len(STATE)) at the end of
    each day, drive (day, 3 * LANES) decay factors of litter and humus, and the active humus (Mg C ha-1).
    Filled unless None: flows (sample, day, len(FLOWS)). version: leave out.
    """
    ground = Ground(
        ground_values[0], ground_values[1], ground_values[2], ground_values[3], ground_values[4], ground_values[5],
        ground_values[6],
    )  # fmt: skip
    count = len(exports_from)
    today = np.empty(TODAY * LANES)
    happened = np.empty(len(FLOWS) * LANES)
    for d in range(days.shape[0]):
        day = _day(days[d])
        for k in range(count):
            s = _state(state, k)
            new, rh, tree, c3, carbon, water = ecosystem_day(
                _layer(parameters, k), _layer(parameters, C3_ROW * LANES + k), _soil(parameters, SOIL_ROW * LANES + k),
                ground, day, d >= exports_from[k], s,
            )  # fmt: skip
            gpp = tree.gpp + c3.gpp
            respiration = tree.respiration + c3.respiration
            npp = gpp - respiration
            nep = npp - rh - ground.exports_in_nep * (carbon.doc_export + carbon.erosion)
            today[k], today[k + LANES], today[k + 2 * LANES] = gpp, npp, respiration + rh
            today[k + 3 * LANES], today[k + 4 * LANES] = nep, rh
            today[k + 5 * LANES], today[k + 6 * LANES] = carbon.decay_factor_litter, carbon.decay_factor_humus
            today[k + 7 * LANES] = new.humus_active
            if flows is not None:
                _record(happened, k, tree, c3, carbon, water)
            state[k] = s[0] if water_only else new[0]
            state[k + LANES] = s[1] if water_only else new[1]
            state[k + 2 * LANES] = s[2] if water_only else new[2]
            state[k + 3 * LANES] = s[3] if water_only else new[3]
            state[k + 4 * LANES] = s[4] if water_only else new[4]
            state[k + 5 * LANES] = s[5] if water_only else new[5]
            state[k + 6 * LANES] = s[6] if water_only else new[6]
            state[k + 7 * LANES] = s[7] if water_only else new[7]
            state[k + 8 * LANES] = s[8] if water_only else new[8]
            state[k + 9 * LANES] = s[9] if water_only else new[9]
            state[k + 10 * LANES] = s[10] if water_only else new[10]
            state[k + 11 * LANES] = s[11] if water_only else new[11]
            state[k + 12 * LANES] = s[12] if water_only else new[12]
            state[k + 13 * LANES] = s[13] if water_only else new[13]
            state[k + 14 * LANES] = s[14] if water_only else new[14]
            state[k + 15 * LANES] = s[15] if water_only else new[15]
            state[k + 16 * LANES] = s[16] if water_only else new[16]
            state[k + 17 * LANES] = s[17] if water_only else new[17]
            state[k + 18 * LANES] = new[18]
            state[k + 19 * LANES] = new[19]
            state[k + 20 * LANES] = new[20]
            state[k + 21 * LANES] = new[21]
        for k in range(fluxes.shape[0]):
            for j in range(5):
                fluxes[k, d, j] = today[j * LANES + k]
        for k in range(pools.shape[0]):
            for j in range(len(STATE)):
                pools[k, d, j] = state[j * LANES + k]
        if drive.shape[0] > 0:
            for j in range(3 * LANES):
                drive[d, j] = today[5 * LANES + j]
        if flows is not None:
            for k in range(flows.shape[0]):
                for j in range(len(FLOWS)):
                    flows[k, d, j] = happened[j * LANES + k]
