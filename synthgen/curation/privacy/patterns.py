"""ENTITIES, HINTS and FORMS: the kinds of personal data and secrets, and the ways in which each kind is written.

A value is found in three steps. First, the hints select the texts that may hold a value, for all texts of a batch at
once (`likely`). Then the patterns of those hints are searched near each place that a hint matched (`find`). Finally,
the form's check decides on each match: by check digits, lengths and ranges, and by the text around the match
(`validate`, `phones`).

A hint must match a part of every value that is written in the hint's form, because other values are not found. RE2 and
Hyperscan read a hint in the same way, because hints have no class such as \\w, no assertion, and no class with
characters beyond ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from synthgen.curation.privacy import phones, validate
from synthgen.curation.privacy.numbering import words
from synthgen.curation.privacy.validate import Check
from synthgen.tables.curation_settings import Entity


@dataclass(frozen=True)
class Kind:
    """A kind of personal data or secret.

    `label` is its pseudonym without the number, and `title` is its name in reasons. `same` maps a value to a text that
    is equal for two spellings of the same value.
    """

    label: str
    title: str
    same: Callable[[str], str]


@dataclass(frozen=True)
class Form:
    """A way to write a value of an entity.

    `pattern` matches candidates. If the pattern has a group `value`, only this group is the candidate; the words before
    the group must match but are not a part of the candidate. A match may begin at most `before` characters before a
    place that the hint matched, and end at most `after` characters after it. If there are `words`, the pattern is
    searched only in parts of the text that have one of these words. `check` decides whether a candidate is a value.
    """

    entity: Entity
    hint: str
    pattern: str
    check: Check
    before: int = 8
    after: int = 60
    words: tuple[str, ...] = ()

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(self.pattern)


ENTITIES: dict[Entity, Kind] = {
    "email": Kind("EMAIL", "e-mail address", str.lower),
    "phone": Kind("PHONE", "phone number", phones.subscriber),
    "ip_address": Kind("IP", "IP address", validate.short_address),
    "card": Kind("CARD", "payment card", validate.digits),
    "iban": Kind("IBAN", "bank account", validate.letters_and_digits),
    "national_id": Kind("ID", "national id", validate.letters_and_digits),
    "secret": Kind("SECRET", "secret", str),
}

# Characters between the digits of a number: ASCII signs, special spaces, a no-break hyphen, and a dash.
_BETWEEN = "(?:[ ().\\-/]|\u00a0|\u202f|\u2009|\u2011|\u2013)"

_CALL = (
    *words(
        """
phone phones telephone telephones tel mobile cell cellphone call fax whatsapp sms text dial ring contact hotline
téléphone tél portable appelez teléfono telefono telefon telefonnummer móvil movil celular llamar llama llame llámame
llámanos llamarme handy mobil rufnummer telefone telemóvel ligue cellulare chiama chiami chiamare chiamami bel telefoon
mobiel телефон тел звоните 电话 手机 電話 手機 号码 携帯 전화 휴대폰
"""
    ),
    *(f"{whose} number" for whose in ("my", "your", "his", "her", "our")),
    "whats app",
)
_SOCIAL = ("ssn", "social security", "social security number")
_BURGER = ("bsn", "burgerservicenummer", "sofinummer", "sofi-nummer")

HINTS: dict[str, tuple[str, ...]] = {
    "at": (r"[^ \n]@[^ \n]",),
    "digits": (rf"[0-9](?:{_BETWEEN}{{0,3}}[0-9]){{8}}",),
    "few digits": (rf"[0-9](?:{_BETWEEN}{{0,3}}[0-9]){{6}}",),
    "letter": (
        r"[0-9]{7}-?[A-Z]",
        r"[0-9]\.[0-9]{3}\.[0-9]{3}-?[A-Z]",
        r"[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
        r"[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]",
        r"[0-9]{2}[a-z][0-9]{2}[a-z][0-9]{3}[a-z]",
        rf"[0-9]{_BETWEEN}?2[AB]{_BETWEEN}?[0-9]{{3}}",
    ),
    "account": (rf"[A-Z]{{2}}[0-9]{{2}}(?:{_BETWEEN}?[A-Z0-9]){{11}}", r"[a-z]{2}[0-9]{2}[a-z0-9]{11}"),
    "quad": (r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",),
    "colons": (
        r"[0-9A-Fa-f]::[0-9A-Fa-f]",
        r":[0-9A-Fa-f]{1,4}::",
        r":[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:",
    ),
    "secret": (
        r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{10}",
        r"gh[pousr]_[A-Za-z0-9]{10}",
        r"github_pat_",
        r"gl(?:pat|ptt|dt|rt|cbt|ft|imt|agent|oas|soat)-[A-Za-z0-9_\-]{10}",
        r"xox[a-z]-",
        r"xapp-[0-9]",
        r"hooks\.slack\.com",
        r"[sr]k_(?:live|test)_",
        r"whsec_",
        r"sk-[A-Za-z0-9_\-]{20}",
        r"hf_[A-Za-z0-9]{10}",
        r"AIza[A-Za-z0-9_\-]{10}",
        r"GOCSPX-",
        r"ya29\.",
        r"npm_[A-Za-z0-9]{10}",
        r"pypi-AgE",
        r"SG\.[A-Za-z0-9_\-]{10}",
        r"eyJ[A-Za-z0-9_\-]{10}",
        r"PRIVATE KEY",
        r"[Aa][Ww][Ss][A-Za-z_ .\-]{0,20}[Ss][Ee][Cc][Rr][Ee][Tt]",
    ),
    "escape": (r"\\u00[2-7Aa]", r"\\u20[0-2]", r"\\/"),
}
"""Maps the name of a hint to its patterns. A text has the hint if one of the patterns matches. JSON text that escapes
characters (`escape`) may hold values of every form.
"""

# A number does not begin or end inside a word, a longer number, a decimal number or a part number.
# Only letters of Latin, Greek and Cyrillic count, because in scripts without spaces a value may follow a word directly.
_LETTERS = "A-Za-z0-9À-ɏͰ-ӿ"
_LEFT = rf"(?<![{_LETTERS}_+#])(?<![0-9][.,/:\-–])(?<![A-Za-z][\-–])"
_RIGHT = rf"(?![{_LETTERS}_])(?![.:\-–][0-9])(?!-[{_LETTERS}])"
_JOIN = "[ ().\\-/\u00a0\u202f\u2009\u2011\u2013]"
_GAP = "[ \\-.\u00a0\u202f\u2009\u2011\u2013]"
_NO_LETTER_BEFORE, _NO_LETTER_AFTER = rf"(?<![{_LETTERS}])", rf"(?![{_LETTERS}])"
_NO_CODE_BEFORE = "".join(rf"(?<!\+[0-9]{{{length}}} )" for length in (1, 2, 3))  # as in +1 (012) 345-6789
_BODY = "A-Za-z0-9_-"
_PEM = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"

# The text that may stand between a word such as "phone" and its number: "'s number is: ", "_number = ", " me at ".
_SAYS = (
    r"""(?:["'’]?s\b)?[\s:=#.,("'_：-]{0,4}"""
    r"""(?i:(?:number|numbers|nr|no|num|n[uú]mero|nummer|номер|is|at|me|us|him|her|them|on|to|my|our|the|under|unter|au|"""
    r"""al|el|le|ist|est|es|è|é|in|via|mobile|phone)[\s:=#.,("'_：-]{1,4}|是|为|は){0,4}"""
)


def _one_of(choices: tuple[str, ...]) -> str:
    """A pattern that matches one of the words `choices`, and no part of a longer word."""
    return rf"(?i:{_NO_LETTER_BEFORE}(?:{'|'.join(map(re.escape, choices))}){_NO_LETTER_AFTER})"


def _token(pattern: str, check: Check = validate.random_token) -> Form:
    """A secret token that begins with a documented prefix."""
    return Form("secret", "secret", rf"(?<![A-Za-z0-9_]){pattern}(?![A-Za-z0-9_])", check, after=4096)


def _id(hint: str, pattern: str, check: Check) -> Form:
    return Form("national_id", hint, pattern, check)


def _phone(pattern: str, check: Check, hint: str = "digits") -> Form:
    return Form("phone", hint, pattern, check)


def _after(entity: Entity, hint: str, before: tuple[str, ...], value: str, check: Check) -> Form:
    """A number that counts only if one of the words `before` stands before it."""
    pattern = rf"{_one_of(before)}{_SAYS}(?P<value>{value}){_RIGHT}"
    return Form(entity, hint, pattern, check, before=90, words=tuple(word.lower() for word in before))


# Forms come in order of priority: if two values overlap, the value whose form comes first counts.
FORMS: tuple[Form, ...] = (
    Form(
        "secret",
        "secret",
        rf"-----BEGIN {_PEM}[^-]*(?:-(?!----)[^-]*)*(?:-----END {_PEM})?",
        validate.private_key,
        before=60,
        after=65536,
    ),
    Form(
        "secret",
        "at",
        r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{1,20}://"
        r"(?P<value>[^\s/:@\\\[\]{}<>\"'`$]{1,128}:[^\s/@\\\[\]{}<>\"'`]{1,256})@(?=[A-Za-z0-9\[])",
        validate.always,
        before=420,
    ),
    _token(rf"eyJ[{_BODY}]{{10,}}\.eyJ[{_BODY}]{{5,}}\.[{_BODY}]{{16,}}", validate.web_token),
    _token(r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    Form(
        "secret",
        "secret",
        r"(?i:aws[a-z_ .-]{0,20}secret[a-z_ .-]{0,20})[\"']?\s{0,3}(?:[:=]|=>|is)\s{0,3}[\"']?"
        r"(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        validate.random_token,
        after=120,
    ),
    _token(r"gh[pousr]_[A-Za-z0-9]{36,251}"),
    _token(r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _token(rf"gl(?:pat|ptt|dt|rt|cbt|ft|imt|agent|oas|soat)-[{_BODY}]{{20,300}}"),
    _token(r"xox[abeoprs]-(?:[0-9A-Za-z]{1,64}-){0,4}[0-9A-Za-z]{8,128}"),
    _token(r"xapp-[0-9]-[A-Z0-9]{8,}-[0-9]{10,}-[0-9a-f]{32,}"),
    _token(r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}"),
    _token(r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,247}"),
    _token(r"whsec_[A-Za-z0-9+/]{24,64}={0,2}"),
    _token(rf"sk-(?:proj|svcacct|admin|ant|or)-[{_BODY}]{{32,300}}", validate.mixed_token),
    _token(r"sk-[A-Za-z0-9]{40,300}", validate.mixed_token),
    _token(r"hf_[A-Za-z0-9]{34,40}"),
    _token(rf"AIza[{_BODY}]{{35}}"),
    _token(rf"GOCSPX-[{_BODY}]{{28}}"),
    _token(rf"ya29\.[{_BODY}]{{30,400}}", validate.mixed_token),
    _token(r"npm_[A-Za-z0-9]{36}"),
    _token(rf"pypi-AgE[{_BODY}]{{50,400}}"),
    _token(rf"SG\.[{_BODY}]{{22}}\.[{_BODY}]{{43}}"),
    Form(
        "email",
        "at",
        rf"(?<![{_LETTERS}_.+%@-])[{_LETTERS}_][{_LETTERS}_.+'-]{{0,63}}@"
        rf"[{_LETTERS}](?:[{_LETTERS}-]*[{_LETTERS}])?(?:\.[{_LETTERS}](?:[{_LETTERS}-]*[{_LETTERS}])?)+",
        validate.address,
        before=70,
        after=255,
    ),
    Form(
        "iban",
        "account",
        rf"(?<![A-Za-z0-9])[A-Z]{{2}}[0-9]{{2}}(?:{_GAP}?[A-Z0-9]){{11,34}}",
        validate.account,
        after=90,
    ),
    Form("iban", "account", r"(?<![A-Za-z0-9])[a-z]{2}[0-9]{2}[a-z0-9]{11,30}(?![A-Za-z0-9])", validate.account),
    Form(
        "card",
        "digits",
        rf"{_LEFT}(?:[0-9]{{4}}(?P<a>{_GAP})[0-9]{{4}}(?P=a)[0-9]{{4}}(?P=a)[0-9]{{4}}(?:(?P=a)[0-9]{{3}})?|"
        rf"[0-9]{{4}}(?P<b>{_GAP})[0-9]{{6}}(?P=b)[0-9]{{4,5}}|[0-9]{{13,19}}){_RIGHT}",
        validate.card,
    ),
    _id(
        "letter",
        r"(?<![A-Za-z0-9_.-])(?:[0-9]{8}|[0-9]{1,2}\.[0-9]{3}\.[0-9]{3})-?[A-Z](?![A-Za-z0-9_-])",
        validate.spanish,
    ),
    _id("letter", r"(?<![A-Za-z0-9_.-])[XYZ]-?[0-9]{7}-?[A-Z](?![A-Za-z0-9_-])", validate.spanish),
    _id(
        "letter",
        r"(?<![A-Za-z0-9])(?:[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]|"
        r"[a-z]{6}[0-9]{2}[a-ehlmprst][0-9]{2}[a-z][0-9]{3}[a-z])(?![A-Za-z0-9])",
        validate.italian,
    ),
    _id(
        "letter",
        r"(?<![A-Za-z0-9_-])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r"(?P<a> ?)[0-9]{2}(?P=a)[0-9]{2}(?P=a)[0-9]{2}(?P=a)[A-D](?![A-Za-z0-9_-])",
        validate.always,
    ),
    _id("digits", rf"{_LEFT}[0-9]{{3}}\.[0-9]{{3}}\.[0-9]{{3}}-[0-9]{{2}}{_RIGHT}", validate.brazilian),
    _after("national_id", "digits", ("cpf",), r"[0-9]{9}-?[0-9]{2}", validate.brazilian),
    _id(
        "digits",
        rf"{_LEFT}[12](?P<a>{_GAP}?)[0-9][0-9](?P=a)(?:0[1-9]|1[0-2]|[23][0-9]|4[0-2])(?P=a)[0-9][0-9](?P=a)[0-9]{{3}}(?P=a)[0-9]{{3}}"
        rf"{_GAP}?[0-9][0-9]{_RIGHT}",
        validate.french,
    ),
    _id(
        "letter",
        rf"{_LEFT}[12](?P<a>{_GAP}?)[0-9][0-9](?P=a)(?:0[1-9]|1[0-2])(?P=a)2[AB](?P=a)[0-9]{{3}}(?P=a)[0-9]{{3}}{_GAP}?[0-9][0-9]{_RIGHT}",
        validate.french,
    ),
    _id("digits", rf"{_LEFT}[0-9]{{3}}(?P<a>[-‑–])[0-9]{{2}}(?P=a)[0-9]{{4}}{_RIGHT}", validate.american),
    _after("national_id", "digits", _SOCIAL, f"[0-9]{{3}}{_GAP}?[0-9]{{2}}{_GAP}?[0-9]{{4}}", validate.american),
    _after("national_id", "digits", _BURGER, f"[0-9](?:{_GAP}?[0-9]){{8}}", validate.dutch),
    _phone(
        rf"(?<![{_LETTERS}_+])(?:\(\+[1-9][0-9]{{0,2}}\)|\+[1-9])(?:{_JOIN}{{0,3}}[0-9]){{6,20}}",
        phones.international,
        "few digits",
    ),
    _phone(rf"{_LEFT}00[1-9](?:{_JOIN}{{0,3}}[0-9]){{6,20}}", phones.international),
    _phone(
        rf"{_LEFT}{_NO_CODE_BEFORE}(?:1{_GAP})?(?:\([2-9][0-9]{{2}}\){_GAP}{{0,2}}[0-9]{{3}}{_GAP}?|"
        rf"[2-9][0-9]{{2}}(?:(?P<a>{_GAP})[0-9]{{3}}(?P=a)|[ /][0-9]{{3}}[-‑–]))[0-9]{{4}}(?![0-9])",
        phones.north_american,
    ),
    _phone(
        rf"{_LEFT}{_NO_CODE_BEFORE}(?:\(0[1-9][0-9]{{0,3}}\){_JOIN}?|0[1-9][0-9]{{0,4}}(?![0-9]*\)){_JOIN}{{1,3}})"
        rf"[0-9]{{2,8}}(?:{_JOIN}{{1,3}}[0-9]{{2,8}}){{0,3}}",
        phones.trunk,
    ),
    _phone(
        rf"{_LEFT}{_NO_CODE_BEFORE}(?:"
        rf"(?:\([1-9][0-9]\){_GAP}?9?|[1-9][0-9] 9)[0-9]{{4}}[-‑–][0-9]{{4}}|"  # Brazil
        r"1[3-9][0-9](?P<a>[ -])[0-9]{4}(?P=a)[0-9]{4}|"  # China
        r"8[ -]?\(?[3489][0-9]{2}\)?[ -]?[0-9]{3}[ -][0-9]{2}[ -][0-9]{2}|"  # Russia
        r"(?:(?<=[一-鿿])|(?<=[一-鿿][：:，,（( ]))1[3-9][0-9]{9}|"  # Chinese numbers after a Chinese word
        rf"[6789][0-9]{{2}}(?P<b>{_GAP})[0-9]{{2}}(?P=b)[0-9]{{2}}(?P=b)[0-9]{{2}}|"  # Spain
        r"3[2-9][0-9][ ./-](?:[0-9]{7}|[0-9]{3} [0-9]{4}))(?![0-9])",  # Italy
        phones.written,
    ),
    _after(
        "phone",
        "few digits",
        _CALL,
        rf"(?:\([0-9]{{1,5}}\)|[0-9](?![0-9]{{0,4}}\)[ -]?[0-9]))(?:{_JOIN}{{0,3}}[0-9]){{3,14}}",
        phones.after_word,
    ),
    Form(
        "ip_address",
        "quad",
        rf"(?<![{_LETTERS}_.+])(?<![A-Za-z][-/])[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}(?!\.?[{_LETTERS}_])(?!-[A-Za-z])",
        validate.ip4,
    ),
    Form(
        "ip_address",
        "colons",
        r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}",
        validate.ip6,
        before=40,
    ),
)
