"""The command `mcip`."""
