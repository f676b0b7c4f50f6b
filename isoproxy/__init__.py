"""isoproxy: a front door to Tor for activities that must never be linked."""

__version__ = "0.1.0"
