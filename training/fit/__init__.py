"""The fits of `sketch` and of the evaluator, and their common loop, optimizers and snapshots."""
