"""Names from programs of the user's own over JSON-RPC: Electrum-NMC and Namecoin Core."""
