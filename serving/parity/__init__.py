"""Proof that training, export and serving score the same rows the same."""
