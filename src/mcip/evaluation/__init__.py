"""Measuring models: tasks, suites of them, benchmarks, and validation during training."""
