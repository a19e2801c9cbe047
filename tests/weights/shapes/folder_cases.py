"""Folders and paths (page 1.3; R4 to R6)."""

from tests.weights.shapes.case import Cases

CASES = Cases()
