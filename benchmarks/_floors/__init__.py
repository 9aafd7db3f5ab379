"""The rows of the benchmark ``floors``, one module for each part of skfair."""
