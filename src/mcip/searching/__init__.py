"""Search: the Lance table of an index, the approximate index derived from it, queries, and near-duplicates."""
