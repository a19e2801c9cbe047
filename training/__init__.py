"""The trainer of `sketch`, the built-in model: data (captioned scenes from openly licensed art), fits, evaluation.

The package needs the `train` extra, and Node's `npm`, which downloads the art. The product does not import this
package.
"""
