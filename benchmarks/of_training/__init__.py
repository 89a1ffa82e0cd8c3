"""What `benchmarks/training.py` measures, one part in each file."""
