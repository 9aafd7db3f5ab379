"""Parts of ``large.py``: what large networks and large data cost."""
