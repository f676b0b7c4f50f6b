"""The block chain without a server: headers, merged mining, proofs, name scripts (SPV)."""
