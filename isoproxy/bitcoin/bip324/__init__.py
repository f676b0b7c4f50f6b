"""BIP324, version 2 of Bitcoin's P2P transport, without sockets."""
