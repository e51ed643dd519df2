"""The process model: VISIT's carbon and water cycle, re-implemented from its published equations and compiled."""

from calibration.visit.compile_cache import prepare_cache

CACHE = prepare_cache()  # before Numba is imported: it reads its settings then
