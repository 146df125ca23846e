"""Tests of `broker_config`, file by file: who may connect and publish what."""
