"""The packages, from the ground up: common, weather, visit, network, ensembles, engines, tower, emulator,
inversion, exploration, judgement, workflows, conflict, reports.

A package imports only what stands before it in this list (held by import-linter, pyproject.toml)."""

import os

# Idle OpenMP threads spin by default: beside one other busy process small matrices took eleven times as long. They
# sleep instead. Read when torch is loaded, so scripts that name torch themselves import this first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
