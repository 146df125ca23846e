"""The embedded broker: amqtt with our authentication and topic plugins.

Read `process.py` first (what is wired to what), then `gatekeeper.py` (who is let in).
`admission.py` and `offline_queue.py` are amqtt's session life where it cannot be left as it is.
"""
