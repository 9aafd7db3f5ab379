"""Parts of the benchmark ``large``: what large networks and large data cost."""
