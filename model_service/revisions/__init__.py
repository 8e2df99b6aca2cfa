"""The vocabulary as this replica knows it: where it came from, and how it follows."""
