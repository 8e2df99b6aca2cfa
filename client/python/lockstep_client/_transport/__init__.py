"""How methods are called: connections, deadlines, repetition, several at a time.

One folder, because two connections, `async_connection` and `sync_connection`, are made of it, and
what waits has two modules with the same names; the others are pure and serve both.
"""
