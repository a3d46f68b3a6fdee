"""Parts of `scripts/kill-test`."""
