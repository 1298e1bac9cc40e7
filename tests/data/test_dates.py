"""Dates: every form says its date and no other, by a reader of dates that knows nothing of how they were written."""

from __future__ import annotations

import datetime
import re
from collections import Counter

import pytest

from rnnzoo.data.synthetic_dates import FORMS, LATE_FORMS, MONTHS, WEEKDAYS, Dates, ordinal, write

YEARS = range(1950, 2050)
DAYS = [datetime.date(1950, 1, 1), datetime.date(2000, 2, 29), datetime.date(2049, 12, 31), datetime.date(2015, 5, 3)]
NAMES = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def read(text):
    """Return all dates that a text may mean."""
    found = set()
    text = text.lower()
    weekday = next(
        (place for place, name in enumerate(WEEKDAYS) if name.lower()[:3] in re.findall("[a-z]{3}", text)), None
    )
    years = [int(year) for year in re.findall(r"(?<!\d)\d{4}(?!\d)", text)]
    years += [year for two in re.findall(r"'(\d\d)(?!\d)", text) for year in YEARS if year % 100 == int(two)]
    small = re.findall(r"(?<![\d'])\d{1,2}(?!\d)", text)
    named = [NAMES.index(word[:3]) + 1 for word in re.findall("[a-z]+", text) if word[:3] in NAMES]
    if named:
        pairs = [(named[0], int(small[0]))] if len(small) == 1 else []
    elif re.match(r"\d{4}", text):  # the year first: then the month
        pairs = [(int(small[0]), int(small[1]))]
    else:
        pairs = [(int(small[0]), int(small[1])), (int(small[1]), int(small[0]))]
    for year in years:
        for month, day in pairs:
            try:
                date = datetime.date(year, month, day)
            except ValueError:
                continue
            if weekday is None or date.weekday() == weekday:
                found.add(date)
    return found


@pytest.mark.parametrize("form", [*FORMS, *LATE_FORMS])
def test_a_form_says_its_date_and_no_other(form):
    dates = [datetime.date(1950, 1, 1) + datetime.timedelta(days=place) for place in range(0, 36525, 113)]
    for date in [*DAYS, *dates]:
        if form in FORMS or date.day > 12:
            for text in (write(date, form), write(date, form).upper()):
                assert read(text) == {date}, text


def test_the_reader_sees_what_is_ambiguous_or_wrong():
    assert len(read("03/05/2015")) == 2
    assert read("Monday, 3 May 2015") == set()
    assert read("Sunday, 3 May 2015") == {datetime.date(2015, 5, 3)}
    assert read("30 February 2015") == set()


def test_samples_are_dates_of_all_forms_months_and_cases():
    samples = Dates(sizes={"train": 3000}).sample("train")
    for sample in samples:
        assert read(sample["source"]) == {datetime.date.fromisoformat(sample["target"])}, sample
    months = Counter(sample["target"][5:7] for sample in samples)
    assert len(months) == 12
    shapes = {re.sub(r"\d+", "0", re.sub("[A-Za-z]{3,}", "x", sample["source"])).lower() for sample in samples}
    assert len(shapes) > 20
    cases = Counter(
        "upper" if text.isupper() else "lower" if text.islower() else "mixed"
        for text in (sample["source"] for sample in samples)
        if text.lower() != text.upper()
    )
    assert all(cases[kind] > 500 for kind in ("upper", "lower", "mixed"))


def test_the_years_are_a_hundred_so_that_two_digits_tell_them():
    samples = Dates(sizes={"train": 5000}).sample("train")
    years = {int(sample["target"][:4]) for sample in samples}
    assert years == set(YEARS)


def test_every_answer_can_be_right():
    assert Dates().best([]) == {"exact_match": 100.0}


def test_names_and_endings():
    assert len(MONTHS) == 12
    assert len(WEEKDAYS) == 7
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 20, 21, 22, 23, 30, 31)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "20th", "21st", "22nd", "23rd", "30th", "31st"]
    )
