"""Requests, built from keywords. Pure: nothing here calls anybody."""
