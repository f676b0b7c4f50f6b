"""Name plugins for Tor: the protocol, a plugin of our own, and a host for any plugin."""
