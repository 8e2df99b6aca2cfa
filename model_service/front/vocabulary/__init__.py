"""The revisions that the model serves, and how it follows the tokenizer service."""
