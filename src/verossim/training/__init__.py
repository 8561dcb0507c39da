"""Learning, by statistics (EM) or by gradient, in one process or many: loops, the plan of their cost, checkpoints, a journal.

Training knows the contract of a family and never a member of the shelf.
"""

from .checkpoint import Checkpoints, locked
from .engine import Engine
from .journal import Journal, read_events
from .loop import Course, Training, train
from .plan import Plan, plan
from .selection import Row, Selection, candidates, select, wants_selection
from .statistics import History, InMemory, Learning, Split, begin, learn, subsample

__all__ = [
    "Checkpoints", "Course", "Engine", "History", "InMemory", "Journal", "Learning", "Plan", "Row", "Selection", "Split",
    "Training", "begin", "candidates", "learn", "locked", "plan", "read_events", "select", "subsample", "train",
    "wants_selection",
]
