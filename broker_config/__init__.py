"""Who may connect and publish what: topics, refusals, policy, registry, and the broker.

Read `policy.py` first: it is the one place that decides. `errors.py`, `events.py`,
`settings.py` and `home.py` are the vocabulary every process of the product shares.
"""
