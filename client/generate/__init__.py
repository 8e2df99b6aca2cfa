"""Writes the generated parts of the Python client."""
