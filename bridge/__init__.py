"""From a message to a row.

Read `pipeline.py` first: the whole way of one message. `process.py` wires it together.
"""
