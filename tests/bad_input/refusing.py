"""What the tests of bad input share."""

import pytest

from verossim.data import open_source
from verossim.errors import VerossimError


def refused(data, code, status, *words, **asked):
    """Opens and reads; checks the one error that must come."""
    with pytest.raises(VerossimError) as caught:
        for _ in open_source(data, **asked).blocks():
            pass
    error = caught.value
    assert (error.code, error.status) == (code, status), error
    assert all(word in error.message for word in words), error.message
    return error
