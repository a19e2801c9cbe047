"""Image generation. This package alone runs the networks on the compute device, in its own threads."""
