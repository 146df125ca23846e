"""The fleet simulator: its decisions alone, and its boards against real brokers."""
