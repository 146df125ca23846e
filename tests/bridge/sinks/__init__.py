"""Tests of the single sinks."""
