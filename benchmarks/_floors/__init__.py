"""The rows of ``benchmarks/floors.py``, one module for each part of skfair."""
