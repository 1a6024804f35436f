"""FeatureTransform: the one transform; Beam encodes with it, and the SavedModel carries it."""
