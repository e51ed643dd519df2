"""Training the emulator, its record and error, loading a trained folder, baselines and figures."""
