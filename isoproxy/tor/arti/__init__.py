"""Arti, the Tor client in Rust: its RPC interface, and an Arti of our own."""
