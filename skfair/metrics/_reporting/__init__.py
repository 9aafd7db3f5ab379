"""The parts of the fairness report: numbers, tables, what a reader sees, and its faces."""
