"""Conversations to text, in processes that can be ended."""
