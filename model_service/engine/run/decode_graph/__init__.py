"""Steps compiled ahead of time: Hugging Face's modeling code around operators of our own."""
