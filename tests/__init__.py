"""Tests: they mirror the source; `e2e/` sees the system from outside, `harness/` runs it."""
