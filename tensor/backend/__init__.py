"""Backends beside NumPy, each in a folder of its own and loaded when a device of its kind is first asked for."""
