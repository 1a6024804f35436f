"""A trained run -> a SavedModel with signatures, manifest and warm-up requests."""
