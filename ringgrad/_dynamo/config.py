"""Settings of a tracer that is not here: scripts may write any name, and nothing reads it."""

suppress_errors = False
cache_size_limit = 8
