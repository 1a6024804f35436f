"""How a Beam job is run: runner, options, workers."""
