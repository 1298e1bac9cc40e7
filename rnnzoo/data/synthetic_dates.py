"""Dates in many written forms, to be written as ISO 8601."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rnnzoo.data.synthetic import Sample, SyntheticTask

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)  # a hundred years, so two digits tell the year
FORMS = (
    "{day} {month} {year}",
    "{day:02d} {month} {year}",
    "{nth} {month} {year}",
    "{nth} of {month} {year}",
    "the {nth} of {month}, {year}",
    "{month} {day}, {year}",
    "{month} {day} {year}",
    "{month} {nth}, {year}",
    "{day} {short} {year}",
    "{day}-{short}-{year}",
    "{short}. {day}, {year}",
    "{short} {day} '{decade}",
    "{nth} of {month} '{decade}",
    "{weekday}, {day} {month} {year}",
    "{weekday} the {nth} of {month} {year}",
    "{week}, {short} {day}, {year}",
    "{week} {day} {short} {year}",
    "{year}, {month} {nth}",
    "{year} {short} {day}",
    "{year}/{number:02d}/{day:02d}",
    "{year}.{number}.{day}",
)
LATE_FORMS = (  # for days past the 12th, which cannot be taken for a month
    "{day}/{number:02d}/{year}",
    "{number:02d}/{day}/{year}",
    "{day}.{number}.{year}",
)
CASES = (str, str.lower, str.upper)


class Dates(SyntheticTask):
    """Dates from 1950 to 2049 as people write them in English, and the same dates as ISO 8601.

    The date follows from what is written: a month is a name, or a number that stands after the year or beside a day
    past the 12th; two digits of a year belong to the one such year of the hundred; weekdays are right, and say
    nothing that is not there.
    """

    columns = ("source", "target")
    default_sizes: ClassVar[dict[str, int]] = {"train": 10000, "validation": 500, "test": 1001}

    def draw(self, random: np.random.Generator) -> Sample:
        """Draw a date, a form that tells it, and how letters are written."""
        date = FIRST + datetime.timedelta(days=int(random.integers((LAST - FIRST).days + 1)))
        forms = FORMS + LATE_FORMS if date.day > 12 else FORMS
        case = CASES[int(random.integers(len(CASES)))]
        return {"source": case(write(date, forms[int(random.integers(len(forms)))])), "target": date.isoformat()}

    def best(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return no mistake at all: the answer follows from the source."""
        return {"exact_match": 100.0}


def write(date: datetime.date, form: str) -> str:
    """Write a date in a form.

    >>> write(datetime.date(2015, 5, 3), "{week} the {nth} of {month} '{decade}")
    "Sun the 3rd of May '15"
    """
    weekday, month = WEEKDAYS[date.weekday()], MONTHS[date.month - 1]
    return form.format(
        day=date.day,
        nth=ordinal(date.day),
        number=date.month,
        month=month,
        short=month[:3],
        year=date.year,
        decade=f"{date.year % 100:02d}",
        weekday=weekday,
        week=weekday[:3],
    )


def ordinal(number: int) -> str:
    """Return a number of at most two digits with its ending.

    >>> ordinal(1), ordinal(12), ordinal(23)
    ('1st', '12th', '23rd')
    """
    ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
