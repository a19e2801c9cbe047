"""Published checkpoints of FLUX.1 [schnell], in every known checkpoint format."""
