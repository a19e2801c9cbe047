"""The fits of `sketch` and of the evaluator, and the loop, optimizers and snapshots that they share."""
