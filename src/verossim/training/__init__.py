"""Learning, by statistics (EM) or by gradient, in one process or many: loops, the plan of their cost, checkpoints, a journal.

Training knows the contract of a family and never a member of the shelf.
"""

from .checkpoint import Checkpoints, locked
from .course import Course, Settled
from .engine import Engine
from .forecast import Forecast, Training, seconds_of, settle
from .journal import Journal, read_events
from .loop import train
from .plan import Plan, plan
from .selection import Row, Selection, candidates, select, wants_selection
from .statistics import History, InMemory, Learning, Split, begin, learn, subsample

__all__ = [
    "Checkpoints", "Course", "Engine", "Forecast", "History", "InMemory", "Journal", "Learning", "Plan", "Row", "Selection",
    "Settled", "Split", "Training", "begin", "candidates", "learn", "locked", "plan", "read_events", "seconds_of", "select",
    "settle", "subsample", "train", "wants_selection",
]
