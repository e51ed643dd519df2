"""Helpers of the demo and of the embedded site: not part of a calibration."""
