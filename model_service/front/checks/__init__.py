"""What a request asks for, checked and completed before it reaches the engine.

One folder, because each module reads one part of a request (prompts, lengths, seeds, scores), and
`plan.py` joins them for every call that gives the engine rows.
"""
