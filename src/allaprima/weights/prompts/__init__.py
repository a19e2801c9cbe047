"""Reads prompts for the built-in model: rewrites them into the grammar of the captions that it was trained on."""
