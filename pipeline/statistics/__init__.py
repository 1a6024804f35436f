"""What a data set holds: vocabularies, moments, quantiles, label rate (mergeable), Facets proto, drift."""
