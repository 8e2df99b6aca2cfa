"""One revision of a tokenizer: text to ids and back.

One folder, because each module is one step of encoding or decoding, which `tokenizer.py` joins.
"""
