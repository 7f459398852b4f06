"""What is trained: the objectives that the training loop minimises."""
