"""The profiler: what each op took, forward and backward, in time, memory and operations, and where the program was.

    events.py    what is noted of a call        recorder.py  how calls are caught, and the doors for other folders
    table.py     sums of calls as a table       flops.py     operations, and what the machine could do at best
    memory.py    arrays that come and go        trace.py     Chrome traces of one rank and of all
    flame.py     folded stacks and pictures     session.py   `profile`, which holds all this together

While a profile is active the ops' functions are replaced by timed ones, in all threads; without one, nothing is slower.
"""

from __future__ import annotations

from .events import Event
from .recorder import record_function
from .session import profile
from .table import Averages, Row
from .trace import merge_traces

__all__ = ["Averages", "Event", "Row", "merge_traces", "profile", "record_function"]
