"""From the configuration to what each room is built with; nothing is decided here."""
