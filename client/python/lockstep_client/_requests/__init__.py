"""Requests, built from keywords. Pure: no I/O."""
