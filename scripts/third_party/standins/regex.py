"""Imported by a tokenizer that these programs do not call."""

from re import *  # noqa: F403
