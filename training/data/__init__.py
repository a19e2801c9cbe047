"""The training data of `sketch`: drawn scenes, their captions, their latents, and batches of them."""
