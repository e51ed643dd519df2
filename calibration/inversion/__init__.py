"""From NEP back to parameters: data, unconstrained space, error model, estimation methods, posterior."""
