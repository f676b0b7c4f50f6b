"""The ground for sockets: readiness, deadlines, addresses, and what every listener needs."""
