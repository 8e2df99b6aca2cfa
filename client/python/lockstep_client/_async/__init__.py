"""Both services, for asyncio. `_sync` is generated from it by `make client`."""
