"""Benchmarks: `make bench`. Figures go to `bench/results/`, the table to `docs/performance.md`."""
