"""Results, read from responses."""
