"""A tor of our own: its torrc, its process, its start."""
