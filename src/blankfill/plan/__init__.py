"""Plans: what a run needs and how long it takes, by arithmetic alone."""
