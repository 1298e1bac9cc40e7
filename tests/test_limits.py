"""Limits on sizes: what is above is refused in one line, which names the variable that raises the limit."""

from __future__ import annotations

import pytest

from rnnzoo.errors import InputError
from rnnzoo.limits import LIMITS, PREFIX, check_limit, limit


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds_and_is_raised_by_its_variable(name, monkeypatch):
    monkeypatch.delenv(PREFIX + name, raising=False)
    default = LIMITS[name].default
    assert limit(name) == default
    check_limit(name, "file.txt", default)
    with pytest.raises(
        InputError, match=rf"^file.txt: expected at most {default:,} .*; set {PREFIX}{name} to raise"
    ) as caught:
        check_limit(name, "file.txt", default + 1)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv(PREFIX + name, str(default + 1))
    check_limit(name, "file.txt", default + 1)


@pytest.mark.parametrize("text", ["", "0", "-1", "1e9", "many", "½"])
def test_a_variable_that_is_no_number_is_named(text, monkeypatch):
    monkeypatch.setenv("RNNZOO_MAX_PIXELS", text)
    with pytest.raises(InputError, match="RNNZOO_MAX_PIXELS: expected a whole number of at least 1"):
        limit("PIXELS")
