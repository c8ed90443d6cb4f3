"""Units after a number. Each spelling of a unit maps to one name; words that are not a known unit are nouns."""

from __future__ import annotations

import re

_UNITS = {
    "$": "$ usd us$ dollar dollars buck bucks",
    "¢": "¢ cent cents",
    "€": "€ eur euro euros",
    "£": "£ gbp pound_sterling quid",
    "¥": "¥ jpy yen",
    "₹": "₹ inr rupee rupees rs",
    "km": "km kilometer kilometers kilometre kilometres",
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "μm": "μm um micrometer micrometers micrometre micrometres micron microns",
    "nm": "nm nanometer nanometers nanometre nanometres",
    "kg": "kg kgs kilo kilos kilogram kilograms",
    "g": "g gram grams",
    "mg": "mg milligram milligrams",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "t": "t ton tons tonne tonnes",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "gal": "gal gallon gallons",
    "qt": "qt quart quarts",
    "pt": "pt pint pints",
    "s": "s sec secs second seconds",
    "ms": "ms millisecond milliseconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "d": "d day days",
    "wk": "week weeks",
    "mo": "month months",
    "y": "yr yrs year years",
    "km/h": "km/h kph kmh kmph",
    "mi/h": "mph mi/h",
    "m/s": "m/s mps",
    "m/s^2": "m/s^2",
    "°C": "°c celsius",
    "°F": "°f fahrenheit",
    "K": "kelvin",
    "°": "° deg degs degree degrees",
    "rad": "rad rads radian radians",
    "m^2": "m^2 m2 sqm",
    "cm^2": "cm^2 cm2",
    "km^2": "km^2 km2",
    "ft^2": "ft^2 ft2 sqft",
    "in^2": "in^2 in2",
    "m^3": "m^3 m3",
    "cm^3": "cm^3 cm3 cc",
    "ft^3": "ft^3 ft3",
    "n": "n newton newtons",
    "j": "j joule joules",
    "kj": "kj kilojoule kilojoules",
    "cal": "calorie calories",
    "kcal": "kcal kcals",
    "w": "w watt watts",
    "kw": "kw kilowatt kilowatts",
    "v": "v volt volts",
    "a": "ampere amperes amps",
    "ω": "ω ohm ohms",
    "hz": "hz hertz",
    "pa": "pa pascal pascals",
    "mol": "mol mole moles",
    "b": "byte bytes",
    "kb": "kb kilobyte kilobytes",
    "mb": "mb megabyte megabytes",
    "gb": "gb gigabyte gigabytes",
}
UNITS = {spelling.replace("_", " "): unit for unit, spellings in _UNITS.items() for spelling in spellings.split()}
MAGNITUDES = {
    "dozen": 12,
    "hundred": 100,
    "k": 10**3,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "mn": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
}
ATTACHED_MAGNITUDES = {
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "mn": 10**6,
    "bn": 10**9,
    "B": 10**9,
}  # these letters stand directly after the digits: 1.5k, $3M
LETTERS = {letter: letter.lower() for letter in "mgshlLdtNJWV"} | {"K": "K", "C": "°C", "F": "°F", "°": "°", "$": "$"}
ATTACHED_LETTERS = frozenset("mghlLVWN")  # "s" is left out, because "1990s" is not a time in seconds
CURRENCIES = "$€£¥₹"

_WORD = re.compile(r"[ ]?([^\W\d_]+[\w'^/°-]*|[°¢$€£¥₹Ω]\w*)")
_POWERED = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3"}
_ADJECTIVES = frozenset(str.split("us american whole full more extra additional consecutive total other calendar"))
_MOST_WORDS = 4
# The words that name the counted things end before any of these words.
_STOP = frozenset(
    str.split(
        "of for in per at on by from with to and or because since as which that who when if after before each every "
        "so but than is are was were be has have had will would can should not over during out while where then a "
        "an into"
    )
)
# Words after a number that say nothing about the counted things.
_EMPTY = frozenset(
    str.split(
        "total altogether all left more less fewer now the together overall remaining additional extra only exactly "
        "about respectively whole full other others them these those it well too there here"
    )
)


def unit_of(words: list[str]) -> tuple[str, frozenset[str], int]:
    """Return (name of the known unit or '', the nouns, the number of words that belong to the unit)."""
    if not words:
        return "", frozenset(), 0
    lower = [word.lower() for word in words]
    if len(words[0]) == 1 and words[0].isascii():
        unit = LETTERS.get(words[0], "")
        return unit, frozenset() if unit else frozenset(lower[:1]), 1 if unit else 0
    if len(words[0]) == 2 and words[0][0] == "M" and words[0][1].islower():
        return words[0], frozenset(), 1  # the case counts, because a megagram (Mg) is not a milligram (mg)
    if lower[0] in _ADJECTIVES and len(words) > 1 and UNITS.get(lower[1]):
        return UNITS[lower[1]], frozenset(), 2
    power = _POWERED.get(lower[0])
    if power and len(words) > 1 and lower[1] in UNITS:
        return UNITS[lower[1]] + power, frozenset(), 2
    unit = UNITS.get(lower[0], "")
    if unit:
        used = 1
        if len(words) > 1 and lower[1] in _POWERED:
            return unit + _POWERED[lower[1]], frozenset(), 2
        if unit == "°" and len(words) > 1 and lower[1] in ("c", "f", "celsius", "fahrenheit"):
            return "°" + lower[1][0].upper(), frozenset(), 2
        return unit, frozenset(), used
    return "", frozenset(singular(word) for word in lower if word not in _EMPTY), 0


def words_behind(text: str, at: int) -> tuple[list[str], int]:
    """Up to four words from the place `at` on, and the place where they end. Punctuation ends the words."""
    words: list[str] = []
    while len(words) < _MOST_WORDS:
        word = _WORD.match(text, at)
        if word is None or word[1].lower() in _STOP:
            break
        words.append(word[1])
        at = word.end()
    return words, at


def singular(word: str) -> str:
    """A rough singular of an English noun in lower case, only for comparison with other results of this function."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
