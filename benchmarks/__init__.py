"""Measurements on real data; ``python -m benchmarks`` lists them."""
