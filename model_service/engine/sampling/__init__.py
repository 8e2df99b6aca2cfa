"""From logits to a token: processors exclude, warpers select, a counter-based draw decides.

One folder, because it is one computation in three equal ways (Hugging Face's classes, one row in
place, the highest-scored candidates), which are read next to each other.
"""
