"""Namecoin names: from `example.bit` to a verified address, under one isolation key."""
