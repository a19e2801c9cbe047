"""Evaluation of `sketch`: a benchmark of prompts, and an evaluator that detects the content of an image."""
