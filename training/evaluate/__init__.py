"""Evaluation of `sketch`: a benchmark of prompts, and an evaluator that detects what an image shows."""
