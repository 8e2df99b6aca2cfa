"""The front's end of the engine: its process, and the calls to it."""
