"""The safety checker."""
