"""Making many runs: engines (the process model here, your own VISIT), the cores they work on, the ensemble's writer."""
