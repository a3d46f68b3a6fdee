"""What is unusual in a run, what is done about it, and how it is told."""
