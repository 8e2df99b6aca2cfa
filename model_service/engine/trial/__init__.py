"""Whether a model that was loaded computes what Hugging Face's code does."""
