"""The rows of embedding and head, and how they grow with the vocabulary."""
