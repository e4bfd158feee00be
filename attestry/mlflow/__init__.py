"""MLflow's model-registry REST protocol, version 2.0: requests, filters, pages, entities and errors. No AWS, no I/O, no clock."""
