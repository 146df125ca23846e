"""Tests of the command line; `simulator/` mirrors `cli/simulator/`."""
