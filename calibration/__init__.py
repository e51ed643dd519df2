"""The packages, from the ground up: common, weather, visit, network, ensembles, engines, tower, emulator,
inversion, exploration, judgement, workflows, reports.

A package imports only what stands before it in this list (held by import-linter, pyproject.toml)."""
