"""Search at inference: spend a budget of generator evaluations on the best pictures that a prompt can have."""

from t2i.search.run import Result, Settings, search

__all__ = ["Result", "Settings", "search"]
