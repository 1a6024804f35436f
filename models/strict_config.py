"""Frozen configs whose errors a user can act on; the pieces live in `pipeline.config_errors`."""

from pipeline.config_errors import StrictConfig, config_error, did_you_mean

__all__ = ["StrictConfig", "config_error", "did_you_mean"]
