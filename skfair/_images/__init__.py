"""Reads images in any accepted form as arrays with channels first."""
