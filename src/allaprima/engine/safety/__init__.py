"""The safety checker: its network, its weights, and the code that scores an image."""
