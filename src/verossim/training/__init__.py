"""Learning: by statistics (EM), in one process or many, with a journal, a plan of its cost and the choice of a model's size.

Training knows the contract of a family and never a member of the shelf.
"""

from .engine import Engine
from .journal import Journal, read_events
from .plan import Plan, plan
from .selection import Row, Selection, candidates, select, wants_selection
from .statistics import History, InMemory, Learning, Split, begin, learn, subsample

__all__ = [
    "Engine", "History", "InMemory", "Journal", "Learning", "Plan", "Row", "Selection", "Split", "begin", "candidates", "learn",
    "plan", "read_events", "select", "subsample", "wants_selection",
]
