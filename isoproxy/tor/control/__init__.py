"""Tor's control port (control-spec): wire format, session, the connection that is kept up."""
