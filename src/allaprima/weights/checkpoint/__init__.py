"""Reads published checkpoints of FLUX.1 [schnell] in all known checkpoint formats."""
