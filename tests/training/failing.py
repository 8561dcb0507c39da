"""Operating system calls that fail when they are told to."""

import os

CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir", "replace")


def fail(patch, call: str, nth: int, number: int, lasting: bool) -> list[int]:
    """Makes the nth call of os.CALL fail (and all after it); what it returns is empty until that call is reached."""
    true, count, reached = getattr(os, call), [0], []

    def failing(*args, **kwargs):
        count[0] += 1
        if count[0] == nth + 1 or (lasting and count[0] > nth + 1):
            reached.append(count[0])
            raise OSError(number, os.strerror(number))
        return true(*args, **kwargs)
    patch.setattr(os, call, failing)
    return reached
