"""The Beam job from raw logs to a data directory: three passes, row fates, accounting."""
