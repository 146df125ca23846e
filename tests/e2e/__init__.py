"""The system from outside: `iotctl`, MQTT clients that are not ours, the databases themselves."""
