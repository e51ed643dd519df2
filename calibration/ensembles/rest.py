"""Which runs are at rest: a forest that still grows or dies when the spin-up ends decides averages by itself."""

import numpy as np

# A run is set apart whose NEP / GPP lies this many interquartile ranges from the median of all: one in some hundred.
RESTLESS = 10.0


def at_rest(nep: np.ndarray, gpp: np.ndarray) -> np.ndarray:
    """(run,) bool: whether a run is at rest like the others; nep, gpp: (run,) sums or means, any one unit."""
    ratio = nep / np.maximum(gpp, 1e-3 * max(float(np.median(gpp)), 1e-12))
    low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
    return np.abs(ratio - middle) <= RESTLESS * max(high - low, 1e-6)
