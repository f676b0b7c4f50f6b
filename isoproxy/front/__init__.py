"""The front end: listeners, the clients' handshakes, and the relay behind them."""
