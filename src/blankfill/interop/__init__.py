"""Weights and tokenizers of other projects: in from their files, out to theirs."""
