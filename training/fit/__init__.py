"""The fits of `sketch` and of the evaluator, and what they share."""
