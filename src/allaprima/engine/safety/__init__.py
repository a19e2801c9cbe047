"""The safety checker: its network, its weights, and the score that it gives an image."""
