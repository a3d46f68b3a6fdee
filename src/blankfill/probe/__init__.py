"""What a model's representations hold: generalized linear models on frozen hidden states."""
