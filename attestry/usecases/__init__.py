"""One module per verb of the registry, written against the ports."""
