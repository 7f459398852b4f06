"""Serving an index: the HTTP API, the queues before the model, what guards it, and the page."""
