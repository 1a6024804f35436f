"""Published versions of a model, on a disk or in a bucket; nothing half-written has an integer name."""
