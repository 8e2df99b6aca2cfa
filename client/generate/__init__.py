"""Writes the generated parts of the clients."""
