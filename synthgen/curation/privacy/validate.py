"""Decides whether a match of a pattern is a value: by check digits, lengths and ranges, and by the text around it.

Each check gets the text and the range of the candidate, and returns the end of the value. The end of the value may be
before the end of the candidate, because a pattern may match the beginning of the next word. None means that the
candidate is not a value.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable

from synthgen.curation.privacy.numbering import CARDS, COUNTRY_DOMAINS, FILE_ENDINGS, IBAN_LENGTHS, words

Check = Callable[[str, int, int], int | None]

_NOT_DIGIT = re.compile(r"[^0-9]")
_NOT_WORD = re.compile(r"[^0-9A-Za-z]")
_LETTER = re.compile(r"[0-9A-Za-z_À-ɏͰ-ӿ]")


def digits(value: str) -> str:
    """The digits of a value."""
    return _NOT_DIGIT.sub("", value)


def letters_and_digits(value: str) -> str:
    """The letters and digits of a value, in upper case."""
    return _NOT_WORD.sub("", value).upper()


def always(text: str, start: int, stop: int) -> int | None:
    """Accept every match of the pattern."""
    return stop


# Sums: a number beside an operator is neither a card number nor a telephone number.

_OPERATOR_BEFORE = re.compile(r"(?:[×÷^$€£~≈√]|(?<=[\d)]) ?(?:\*\*?|[+=<>/−])|(?<=\d) [-–]|[=+] ?[\d.]+ ?[+−]) ?\Z")
_OPERATOR_AFTER = re.compile(r" ?(?:[×÷^%€£=]|\*\*? ?[\d(]|\+ ?\d|[-–/−] \d|[<>] ?\d)")


def in_sum(text: str, start: int, stop: int) -> bool:
    """Whether the range is a number in a calculation, such as the first number of "300-250-1000 = -950"."""
    before = _OPERATOR_BEFORE.search(text[max(0, start - 24) : start])
    return before is not None or _OPERATOR_AFTER.match(text, stop) is not None


# E-mail addresses and IP addresses

_PLACE_BEHIND = re.compile(r":[\w~.-]*/")


def address(text: str, start: int, stop: int) -> int | None:
    """An e-mail address. Words after a full stop without a space are cut off. The place of a repository
    (`git@host:name/name`), a user before a host (`https://name@host`) and names of files (`logo@2x.png`) are not e-mail
    addresses.
    """
    local, _, domain = text[start:stop].partition("@")
    if local.endswith(".") or ".." in local or not any(map(str.isalnum, local)):
        return None
    if text[:start].endswith("://") or (local == "git" and _PLACE_BEHIND.match(text, stop)):
        return None
    labels = domain.split(".")
    while len(labels) > 1 and not _is_top(labels[-1]):
        labels.pop()
    if len(labels) < 2:
        return None
    return start + len(local) + 1 + len(".".join(labels))


def _is_top(label: str) -> bool:
    """Whether a label may be the last label of a domain."""
    if label.lower().startswith("xn--"):
        return True
    if not label.isalpha() or not (label.islower() or label.isupper()):
        return False
    if len(label) == 2 and label.isascii():
        return label.lower() in COUNTRY_DOMAINS
    return len(label) >= 2 and label.lower() not in FILE_ENDINGS


_NUMBER_OF = re.compile(
    r"(?i:(?<![A-Za-zÀ-ɏͰ-ӿ])(?:versions?|ver|v|releases?|rev|revision|build|firmware|driver|patch|sections?|sect?|chapter|clause|"
    r"article|figure|fig|table|paragraph|para|appendix|annex|exercise|lemma|theorem|step|rule|standard|oid|versi[oó]n|"
    r"vers[aã]o|versione|abschnitt|kapitel|ziffer|absatz|chapitre|cap[ií]tulo|capitolo|secci[oó]n|sezione|se[cç][aã]o|"
    r"верси[яиюей]+|раздел|глава)(?![A-Za-zÀ-ɏͰ-ӿ])|版本|[§¶])[\s:.#=(\"'`-]{0,4}"
    r"(?:(?:number|numbers|no\.?|nr\.?|is|of|to|from|was)\s+)*"
    r"(?:v?\d[\d.]*\s*(?:to|and|or|through|,|-|–|->|→|bis|und|et|y|e)\s*)*v?\Z"
)
_COMPARED = re.compile(r"(?:[=<>~!]=|[~^]) ?\Z")
_HEADING = re.compile(r"(?:^|\n)[ \t#*]*\Z")
_SAYS_ADDRESS = re.compile(
    r"(?i:\b(?:ip|ips|ipv4|address|addr|hosts?|server|ping|dns|gateway|nameserver|router|connect\w*|listen\w*|adresse|"
    r"direcci[oó]n|indirizzo|endere[cç]o)\b|://|@)[^\n]{0,24}\Z"
)
_PORT = re.compile(r":\d{2,5}\b|/\d{1,2}\b")
_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
) + tuple(ipaddress.ip_network(network) for network in ("224.0.0.0/4", "240.0.0.0/4"))
_SMALL = 30  # if all four numbers are at most this, they may be the number of a section or version


def ip4(text: str, start: int, stop: int) -> int | None:
    """An IPv4 address on the internet. Addresses of local networks, and numbers of versions or sections, are not
    accepted.
    """
    parts = text[start:stop].split(".")
    if any(int(part) > 255 or (part[0] == "0" and part != "0") for part in parts):
        return None
    host = ipaddress.IPv4Address(text[start:stop])
    if any(host in network for network in _LOCAL_NETWORKS):
        return None
    before = text[max(0, start - 60) : start]
    if _NUMBER_OF.search(before) or _COMPARED.search(before):
        return None
    if max(map(int, parts)) > _SMALL or _PORT.match(text, stop):
        return stop
    return stop if _SAYS_ADDRESS.search(before) and not _HEADING.search(before) else None


def ip6(text: str, start: int, stop: int) -> int | None:
    """An IPv6 address on the internet. A shortened address must begin with 2 or 3, as all assigned addresses do,
    because programs have names such as `abc::def`.
    """
    if text[stop - 1] == ":" and text[stop - 2] != ":":
        stop -= 1  # this colon belongs to the sentence, not to the address
    value = text[start:stop]
    if _LETTER.match(text, stop):
        return None
    try:
        host = ipaddress.IPv6Address(value)
    except ValueError:
        return None
    groups = value.split("::")[0].split(":")
    if host.is_loopback or host.is_link_local or host.is_multicast or host.is_unspecified or host in _UNIQUE_LOCAL:
        return None
    if "::" in value:
        return stop if len(groups[0]) == 4 and groups[0][0] in "23" else None
    return stop if any(len(group) > 2 for group in groups) else None


_UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")


def short_address(value: str) -> str:
    """An IP address in its shortest form."""
    return ipaddress.ip_address(value).compressed


# Cards and accounts

_SAYS_CARD = re.compile(
    r"(?i:card|visa|master ?card|amex|credit|debit|pan\b|karte|carte|tarjeta|cart[aã]o|carta|карт|卡)[^\n]{0,30}\Z"
)
_USUAL_LENGTHS = (14, 15, 16)  # a bare number of another length counts only if the text says that it is a card


def card(text: str, start: int, stop: int) -> int | None:
    """The number of a payment card. Such a number has a prefix and length of a card scheme, and a correct check digit
    (Luhn).
    """
    number = digits(text[start:stop])
    if not any(
        first <= int(number[: len(str(first))]) <= last and len(number) in lengths for first, last, lengths in CARDS
    ):
        return None
    if not luhn(number) or len(set(number)) < 2 or in_sum(text, start, stop):
        return None
    bare = len(number) == stop - start and len(number) not in _USUAL_LENGTHS
    return stop if not bare or _SAYS_CARD.search(text[max(0, start - 50) : start]) else None


def luhn(number: str) -> bool:
    """Whether the last digit of a number is its check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def account(text: str, start: int, stop: int) -> int | None:
    """An IBAN. An IBAN has the length for its country, and its remainder modulo 97 is 1 (ISO 13616). Letters of the
    next word are cut off.
    """
    value = ""
    length = IBAN_LENGTHS.get(text[start : start + 2].upper())
    for end in range(start, stop):
        if len(value) == length:
            stop = end
            break
        value += text[end].upper() if text[end].isalnum() else ""
    if len(value) != length or _LETTER.match(text, stop):
        return None
    return stop if int("".join(str(int(sign, 36)) for sign in value[4:] + value[:4])) % 97 == 1 else None


# National ids

_SPANISH = "TRWAGMYFPDXBNJZSQVHLCKE"


def spanish(text: str, start: int, stop: int) -> int | None:
    """A DNI or NIE: the letter at the end stands for the remainder of the number modulo 23."""
    value = letters_and_digits(text[start:stop])
    if value[0] in "XYZ":
        value = str("XYZ".index(value[0])) + value[1:]
    return stop if value[:-1].isdigit() and value[-1] == _SPANISH[int(value[:-1]) % 23] else None


_ODD_VALUES = "01 00 05 07 09 13 15 17 19 21 02 04 18 20 11 03 06 08 12 14 16 10 22 25 24 23"
_ODD = {sign: int(value) for sign, value in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", words(_ODD_VALUES), strict=True)}
_ODD |= {digit: _ODD[letter] for digit, letter in zip("0123456789", "ABCDEFGHIJ", strict=True)}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def italian(text: str, start: int, stop: int) -> int | None:
    """A codice fiscale: the last letter is the check character (decree of 23 December 1976). The day of birth, which
    has 40 added for women, is a valid day.
    """
    value = text[start:stop].upper()
    if value[9:11].isdigit() and not (int(value[9:11]) < 72 and 1 <= int(value[9:11]) % 40 <= 31):
        return None
    total = sum(_ODD[sign] for sign in value[:15:2])
    total += sum(int(sign) if sign.isdigit() else _LETTERS.index(sign) for sign in value[1:15:2])
    return stop if value[15] == _LETTERS[total % 26] else None


def brazilian(text: str, start: int, stop: int) -> int | None:
    """A CPF: two check digits modulo 11."""
    value = digits(text[start:stop])
    if len(value) != 11 or len(set(value)) == 1:
        return None
    for place in (9, 10):
        total = sum(int(digit) * (place + 1 - number) for number, digit in enumerate(value[:place]))
        if int(value[place]) != total * 10 % 11 % 10:
            return None
    return stop


def french(text: str, start: int, stop: int) -> int | None:
    """A NIR: the last two digits are 97 minus the remainder of the other digits modulo 97. 2A and 2B, for Corsica,
    count as 19 and 18.
    """
    value = letters_and_digits(text[start:stop]).replace("2A", "19").replace("2B", "18")
    if len(value) != 15 or not value.isdigit() or in_sum(text, start, stop):
        return None
    return stop if int(value[13:]) == 97 - int(value[:13]) % 97 else None


def american(text: str, start: int, stop: int) -> int | None:
    """A social security number: no part is all zeros, and the area is neither 666 nor 900 and above."""
    value = digits(text[start:stop])
    area, group, serial = value[:3], value[3:5], value[5:]
    if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000" or len(value) != 9:
        return None
    return None if in_sum(text, start, stop) else stop


def dutch(text: str, start: int, stop: int) -> int | None:
    """A BSN: the sum of the digits with the weights 9 to 2 and −1 is divisible by 11."""
    value = digits(text[start:stop])
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    total = sum(weight * int(digit) for weight, digit in zip(weights, value, strict=False))
    return stop if len(value) == 9 and int(value) > 0 and total % 11 == 0 else None


# Secrets

_DISTINCT = 7  # a token with fewer different characters is a placeholder, such as "sk_live_xxxxxxxxxxxxxxxx"
_KEY_LENGTH = 40  # minimum number of characters of a private key
_KEY_LINE = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")


def random_token(text: str, start: int, stop: int) -> int | None:
    """A token that looks random, because it has several different characters after its prefix."""
    return stop if len(set(text[start:stop][-20:])) >= _DISTINCT else None


def mixed_token(text: str, start: int, stop: int) -> int | None:
    """A token that looks random and has digits and capitals, unlike a name such as "sk-admin-settings-of-the-page"."""
    value = text[start:stop]
    mixed = any(map(str.isdigit, value)) and any(map(str.isupper, value))
    return random_token(text, start, stop) if mixed else None


def private_key(text: str, start: int, stop: int) -> int | None:
    """A private key with its content. A text that only quotes the first line of such a file has no private key. If the
    last line is missing, the value ends with the content.
    """
    lines = list(_KEY_LINE.finditer(text, text.index("PRIVATE KEY", start) + 11, stop))
    if sum(len(line.group()) for line in lines) < _KEY_LENGTH:
        return None
    return stop if text[stop - 5 : stop] == "-----" else lines[-1].end()


def web_token(text: str, start: int, stop: int) -> int | None:
    """A JSON web token: its first part is a JSON object that names an algorithm (RFC 7519)."""
    head = text[start:stop].split(".")[0]
    try:
        values = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return stop if isinstance(values, dict) and "alg" in values else None
