"""The trainer of `sketch`, the built-in model: captioned scenes from openly licensed art, fitting, and scoring.

Needs the `train` extra and Node's `npm` (which brings the art); the product itself never imports it.
"""
