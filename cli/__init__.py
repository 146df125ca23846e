"""The command line, `iotctl`.

`main.py` dispatches, `commands/<verb>.py` does, `output.py` prints.
"""
