"""Inversions of other kinds: with the process model in the emulator's place, and window by window."""
