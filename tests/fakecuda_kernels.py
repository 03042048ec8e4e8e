"""Placeholder."""


class Module:
    pass
