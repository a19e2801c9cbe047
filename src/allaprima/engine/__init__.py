"""Generates images: the only package that uses the compute device, in its own threads."""
