"""Tests of the embedded broker's own parts."""
