"""Namecoin names for programs that use Tor's own ports: a controller, and a control filter."""
