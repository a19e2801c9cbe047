"""Published checkpoints of FLUX.1, in every layout."""
