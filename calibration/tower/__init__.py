"""From a flux tower's files to daily observations and windows."""
