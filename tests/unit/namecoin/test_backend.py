"""What a backend may say."""

from __future__ import annotations

import pytest

from isoproxy.errors import ErrorKind, NamingError
from isoproxy.namecoin.backend import ABSENT_REASONS, Absent, TemporaryFailure


@pytest.mark.parametrize("reason", ErrorKind)
def test_absence_is_stated_with_one_of_its_reasons(reason: ErrorKind) -> None:
    if reason in ABSENT_REASONS:
        assert Absent(reason).reason is reason
    else:
        with pytest.raises(ValueError, match="no such reason"):
            Absent(reason)


def test_a_temporary_failure_is_no_absence() -> None:
    failure = TemporaryFailure()
    assert isinstance(failure, NamingError)
    assert failure.kind is ErrorKind.NAME_BACKEND_DOWN
    assert failure.kind not in ABSENT_REASONS
