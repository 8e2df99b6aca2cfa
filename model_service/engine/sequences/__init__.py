"""A sequence: its tokens so far, and what is known about its end and its next tokens."""
