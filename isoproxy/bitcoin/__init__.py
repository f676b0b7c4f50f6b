"""Bitcoin P2P traffic leaves as v2 (BIP324), each flow on its own tuple's circuit."""
