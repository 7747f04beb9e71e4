"""Where things are in a Hugging Face vision-language model, and how to open one.

Models stay Hugging Face's own: they are described by data, hooked inside `with` blocks, never
wrapped or rewritten.
"""
