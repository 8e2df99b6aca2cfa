"""One revision of a tokenizer: text to ids and back."""
