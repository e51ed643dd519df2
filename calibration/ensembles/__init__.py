"""Many runs of a process model: their files and store, and whether they are what their labels say."""
