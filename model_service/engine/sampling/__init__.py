"""From logits to a token: processors exclude, warpers select, a counter-based draw decides."""
