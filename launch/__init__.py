"""Start workers, tell each who it is, and report which one failed first. Imports no NumPy."""
