"""The version, as in pyproject.toml: in a file of its own, so that parts know it without importing the whole."""

__version__ = "0.1.0"
