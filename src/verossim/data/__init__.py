"""Data: anything a person has becomes records, then batches.

    open_source -> Source -> blocks of Records -> (a codec) -> prepare -> Encoded: train and held-out Splits -> Loader

sources opens anything; tables, delimited, pictures, archives, arrays, memory and hub know one kind each; cache prepares;
loader serves batches; manifest says what it all was made from; sides finds what was held out again; people gives records back
as they came.
"""

from .cache import Encoded, Split, prepare, rows_of
from .documents import whole
from .loader import Loader
from .manifest import Manifest
from .people import frame_of, joined, to_people, to_pictures, to_table
from .said import given_columns, record_text
from .sides import Chosen, few, lots, sides
from .sources import Source, open_source

__all__ = ["Chosen", "Encoded", "Loader", "Manifest", "Source", "Split", "few", "frame_of", "given_columns", "joined",
           "lots", "open_source", "prepare", "record_text", "rows_of", "sides", "to_people", "to_pictures", "to_table", "whole"]
