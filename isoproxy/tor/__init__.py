"""Tor from the outside: dialling through it, running it, talking to its control port."""
