"""What is written for the user: what may be replaced, and how it appears whole."""
