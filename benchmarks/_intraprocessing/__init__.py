"""The rooms of intraprocessing.py: tasks, measures, methods, runs and tables."""
