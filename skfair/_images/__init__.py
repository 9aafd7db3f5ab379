"""Images in whatever form they come, as arrays with channels first."""
