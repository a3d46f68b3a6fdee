"""Attention over packed rows as operators of their own, in Python and once more in C."""
