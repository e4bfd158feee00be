"""Pure rules of the registry: no AWS, no I/O, no clock."""
