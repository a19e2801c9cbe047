"""Loads models: from files on disk to networks and tokenizers in memory."""
