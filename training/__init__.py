"""The trainer of `sketch`, the built-in model: data (captioned scenes from openly licensed art), fits, evaluation.

It needs the `train` extra, and Node's `npm`, which fetches the art. The product never imports it.
"""
