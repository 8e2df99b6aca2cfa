"""What callers give and get as it is, and its wire forms: batches, ids, tokens, selections."""
