"""Shared by all: command line, units, sites, parameters (names, ranges, ties), scalers, configuration, scores."""
