"""The documentation, and `generate.py`, which writes its references from the code."""
