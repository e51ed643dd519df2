"""Before anybody inverts anything: how the fluxes respond to each parameter, and which a tower could inform."""
