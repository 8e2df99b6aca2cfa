"""The process that owns the model. Knows tensors; knows neither gRPC nor text."""
