"""HTTP: the status page, the API behind it, metrics and probes.

`status.py` builds the answers (pure), `app.py` serves them, `page/` is the page itself.
"""
