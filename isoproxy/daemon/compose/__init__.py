"""The composition root in parts: builds what the configuration asks for."""
