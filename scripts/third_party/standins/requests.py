"""Nothing is downloaded."""
