"""Loads models: reads files on disk, and returns networks and tokenizers in memory."""
