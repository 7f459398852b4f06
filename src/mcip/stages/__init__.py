"""One module per command: each is one function, with the same parameters in the command, in YAML and in Python."""
