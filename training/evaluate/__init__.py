"""How `sketch` is scored: the benchmark of prompts, and the evaluator that detects what an image shows."""
