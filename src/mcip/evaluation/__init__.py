"""Measuring models: the tasks, and what a table of one's own gives."""
