"""Data sets that the benchmarks write for themselves."""
