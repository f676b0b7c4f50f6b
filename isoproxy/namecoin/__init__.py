"""Namecoin: from a name under bit to a verified answer, under one isolation key."""
