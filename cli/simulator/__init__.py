"""Simulated ESP32 boards that publish readings through real MQTT.

Read `device.py` first: the life of one board. What a board decides is pure and stands apart:
`climate.py` (what its sensors see), `schedule.py` (when it takes a reading), `outbox.py` (what
it keeps, sends and forgets). `paho_asyncio.py` drives its MQTT client from an asyncio loop, and
`fleet.py` runs many boards in one.
"""
