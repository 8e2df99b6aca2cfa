"""Loads gRPC so that it writes nothing to stderr: exceptions say in a sentence what failed.

gRPC reads `GRPC_VERBOSITY` once, when it is loaded. Where the variable is set, or gRPC was
loaded before, it stays as it is.
"""

import os

_VARIABLE = "GRPC_VERBOSITY"

if _VARIABLE not in os.environ:
    os.environ[_VARIABLE] = "NONE"
    import grpc as grpc

    del os.environ[_VARIABLE]
