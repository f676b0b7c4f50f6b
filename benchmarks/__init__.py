"""Ratios within one run: against no proxy, other proxies, and Tor's own SocksPort."""
