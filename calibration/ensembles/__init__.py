"""Many runs of a process model: engines that make them, their files and store, and the search for wrong labels."""
