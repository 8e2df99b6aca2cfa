"""The contenders. Each module answers rounds on its standard streams."""
