"""A notebook's shell is not there."""
