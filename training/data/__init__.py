"""What `sketch` is fitted to: drawn scenes, their captions, their latents, and the batches of a fit."""
