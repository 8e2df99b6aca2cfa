"""The gRPC methods: parse, delegate, format. One module per service."""
