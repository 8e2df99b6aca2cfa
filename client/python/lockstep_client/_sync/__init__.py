# Generated from _async/__init__.py by `make client`.
"""Both services, blocking. `_sync` is generated from it by `make client`."""
