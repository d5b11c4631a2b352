"""One command a file; each is one call of the public functions."""
