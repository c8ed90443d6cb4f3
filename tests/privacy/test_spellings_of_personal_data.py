"""Two spellings of a telephone number are one value, and numbers that only look alike are not."""

from __future__ import annotations

import pytest

from synthgen.privacy.spellings import given, sought


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("+354 551 0000", "551 0000", True),  # numbers of Iceland have seven digits
        ("+298 201234", "201234", True),  # and those of the Faroe Islands have six
        ("+354 551 0000", "+298 5510000", False),
        ("1-415-555-0132", "(415) 555-0132", True),
        ("1-415-555-0132", "415-555-0133", False),
        ("1-415-555-0132", "15-555-0132", False),
        ("31 1234 56789", "1123456789", False),  # only the digit 1 stands before a number of North America
        ("1 555 0132", "555 0132", False),  # too short for a number of North America
        ("0044 20 7946 0958", "+44 20 7946 0958", True),
        ("+44 (0)20 7946 0958", "020 7946 0958", True),
        ("+1 415 555 0132 ext. 12", "415 555 0132", True),
        ("+1 415 555 0132", "+1 415 555 0133", False),
    ],
)
def test_a_number_is_the_same_with_and_without_its_country(first, second, same):
    assert bool(sought("phone", first) & given("phone", second)) == same
    assert bool(sought("phone", second) & given("phone", first)) == same
