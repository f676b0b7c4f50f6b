"""Name look-ups of other programs over JSON-RPC: Electrum-NMC and Namecoin Core."""
