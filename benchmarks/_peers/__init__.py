"""Other packages, each run in a throwaway environment with pinned versions."""
