"""Our own light client, which speaks the Electrum protocol; Electrum-NMC is in namecoin.rpc."""
