"""Nearest neighbours in an index: exact search, a graph in memory, an index on disk."""
