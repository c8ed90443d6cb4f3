"""Texts with planted personal data and secrets, and look-alikes without them. All texts are drawn with a seed.

for planted in plants("phone", 300, seed=1):
    planted.text, planted.start, planted.stop    # the value is text[start:stop]
for text in lookalikes("phone", 300, seed=1):
    ...

The formats and check digits are written here from their public descriptions. The formats share nothing with the
patterns of the package, so an error in a pattern is not repeated here.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from typing import NamedTuple

Draw = random.Random

ALPHANUMERIC = string.ascii_letters + string.digits
LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
NBSP = "\u00a0"


class Planted(NamedTuple):
    """A text and the range of the value in it."""

    text: str
    start: int
    stop: int


def listed(text: str) -> list[str]:
    """The items of a text, which are separated by "|" and by the ends of lines. Spaces count."""
    return [item for line in text.strip("\n").split("\n") for item in line.split("|")]


# Texts that surround a value: sentences in several languages, lists, markup, JSON, code, or no text.
AROUND = """
{v}
My details: {v}.
Please use {v}, and thank you.
The old one was ({v}).
"{v}"
<p>{v}</p>
**{v}**
See {v}; otherwise wait until Monday at 9:30.
Schreiben Sie uns: {v} oder kommen Sie am 3. Mai vorbei.
Voici mes coordonnées : {v} (avant 18 h).
Mis datos son {v}. ¡Hasta mañana!
I miei dati: {v} - grazie mille
Вот мои данные: {v}, до завтра.
请联系{v}。
連絡先は{v}です。
아래로 연락: {v}
- name: Ann
- data: {v}
- age: 41
| Ann Lee | {v} | 41 |
7,Ann Lee,{v},41
data = {{"value": "{v}"}}
values = ['{v}', 'x']
{{"name": "Ann", "value": "{v}", "n": 3}}
It costs $12.50, and for 3 of them {v} is enough to know.
first line
{v}
""".strip()
FRAMES = [line for line in AROUND.splitlines() if "{v}" in line] + ["first line\n{v}\nthird line", "a\t{v}\tb"]


def filled(draw: Draw, pattern: str) -> str:
    """Fills a format with random characters: # is any digit, @ a digit from 1 to 9, N a digit from 2 to 9, ~ a
    separator.
    """
    between = draw.choice([" ", "-", ".", NBSP])
    kinds = {"#": DIGITS, "@": DIGITS[1:], "N": DIGITS[2:], "M": DIGITS[2:9]}
    return "".join(between if sign == "~" else draw.choice(kinds[sign]) if sign in kinds else sign for sign in pattern)


def text_of(draw: Draw, alphabet: str, length: int) -> str:
    return "".join(draw.choice(alphabet) for _ in range(length))


# Planted values


def email(draw: Draw) -> str:
    first, last = draw.choice(["ann", "Bob", "maría", "jörg", "li.wei", "o'neil"]), draw.choice(["lee", "smith", "x"])
    number = draw.randrange(1, 99)
    kinds = [f"{first}.{last}", f"{first}_{number}", f"{first}+{last}", f"{first}{number}", f"{first}-{last}"]
    local = draw.choice(kinds)
    if draw.random() < 0.1:
        local = draw.choice(["info", "x", "1234", "_team_"])
    host = draw.choice(["example", "mail.example", "my-firm", "uni-köln", "3com", "a.b.c"])
    address = f"{local}@{host}.{draw.choice(['com', 'org', 'de', 'co.uk', 'io', 'museum', 'info', 'fr', 'gov.br'])}"
    return address.upper() if draw.random() < 0.1 and address.isascii() else address


INTERNATIONAL = listed(
    """
+1 N0# MN# ####|+1-MM#-N4#-####|+1 (MM#) N5#-####|+1MM#N6#####|+44 20 7### ####|+44 (0)20 7### ####|+44 79## ######
+49 30 #######|+49 (0)89 ########|+4917########0|+49-171-#######|+33 6 ## ## ## ##|+33 1.##.##.##.##|+34 6## ## ## ##
+34 9########|+39 3## #######|+39 06 ########|+31 6 ########|+31-20-#######|+55 (11) 9####-####|+55 21 9########
+81 90-####-####|+81-3-####-####|+86 13# #### ####|+8615#########|+91 9#### #####|+91-8#########|+7 (9##) ###-##-##
+61 4## ### ###|+27 82 ### ####|+41 44 ### ## ##|+43 1 #######|+46 70 ### ## ##|+48 ### ### ###|+52 55 #### ####
+971 50 ### ####|+234 80# ### ####|+351 91# ### ###|+358 40 #######|+30 69# ### ####|+90 53# ### ## ##|+65 9### ####
0044 20 7### ####|0049 30 #######|0033 6 ## ## ## ##|001-MM#-N7#-####|+49 30/#######|+420 6## ### ###
+380 67 ### ## ##
"""
)
NATIONAL = listed(
    """
(MM#) N4#-####|MM#-N4#-####|MM#.N4#.####|MM# N4#-####|1-MM#-N4#-####|(MM#)N4#-####|MM#-N4#-#### ext. ##
(MM#) N4#-####x###|020 7### ####|07### ######|0161 ### ####|(0161) ### ####|07### ### ###|030 12######|030/######9
0171 #######|0171/#######|089-########|0621 ######|06-########|020-#######|(02) 9### ####|04## ### ###|03-####-####
090-####-####|010-####-####|(11) 9####-####|(21) 3###-####|13#-####-####|15# #### ####|8 (495) ###-##-##
8-9##-###-##-##|9## ## ## ##|6##.##.##.##|06 98 ## ## 01|01.98.##.##.02|07-91-##-##-10|044 ### ## ##|0470 ## ## ##
0532 ### ## ##|347 ### ####|339 #######
"""
)
BARE = listed(
    """
MM#N4#####|06########|07#########|017########|9########|## #### ####|### ### ###|13#########|0# ## ## ## ##
#### #### ##
"""
)
WORDS = listed(
    """
call me at |phone: |Tel. |my phone number is |mobile no. |WhatsApp: |Fax: |text her on |contact us at |Téléphone :
tél.: |teléfono: |llámame al |Handy: |Telefonnummer |Telefon: |Cellulare |телефон: |тел. |电话：|手机号码是|電話: |dial
Call |Tel:|cell: |Your phone's number is
"""
)


def phone(draw: Draw) -> tuple[str, str]:
    kind = draw.random()
    if kind < 0.5:
        return "", filled(draw, draw.choice(INTERNATIONAL))
    if kind < 0.85:
        return "", filled(draw, draw.choice(NATIONAL))
    word = draw.choice(WORDS)
    return (word if word[-1] in " ：是" else f"{word} "), filled(draw, draw.choice(BARE))


def ip_address(draw: Draw) -> str:
    if draw.random() < 0.6:
        first = draw.choice([8, 23, 45, 62, 81, 93, 104, 142, 185, 198, 203, 212])
        address = f"{first}.{draw.randrange(40, 256)}.{draw.randrange(256)}.{draw.randrange(256)}"
        return address + draw.choice(["", "", "", ":8080", "/24"])
    groups = [f"{draw.randrange(1, 1 << 16):x}" for _ in range(8)]
    groups[0] = draw.choice(["2001", "2a02", "2607", "2c0f"])
    kind = draw.random()
    if kind < 0.3:
        return ":".join(groups)
    if kind < 0.6:
        return ":".join(groups[: draw.randrange(2, 6)]) + "::" + groups[7]
    if kind < 0.8:
        return ":".join(f"{int(group, 16):04x}" for group in groups).upper()
    return ":".join(groups[:3]) + "::" + ":".join(groups[5:])


def with_luhn(draw: Draw, prefix: str, length: int) -> str:
    body = prefix + text_of(draw, DIGITS, length - 1 - len(prefix))
    doubled = "0246813579"
    total = sum(int(doubled[int(sign)] if place % 2 == 0 else sign) for place, sign in enumerate(reversed(body)))
    return body + str(-total % 10)


def grouped(number: str, sizes: tuple[int, ...], between: str) -> str:
    parts, start = [], 0
    for size in sizes:
        parts.append(number[start : start + size])
        start += size
    return between.join([*parts, number[start:]] if number[start:] else parts)


def card(draw: Draw) -> str:
    between = draw.choice([" ", "-", NBSP, ""])
    if draw.random() < 0.2:
        return grouped(with_luhn(draw, draw.choice(["34", "37"]), 15), (4, 6, 5), between)
    if draw.random() < 0.1:
        return grouped(with_luhn(draw, draw.choice(["36", "38", "300"]), 14), (4, 6, 4), between)
    prefix = draw.choice(["4", "4", "51", "55", "2221", "2720", "6011", "65", "3530", "62", "6759", "2202"])
    return grouped(with_luhn(draw, prefix, 16), (4, 4, 4, 4), between)


# "#" is a digit, A is a letter, and X is a digit or a letter.
ACCOUNTS = {
    "DE": "#" * 18,
    "GB": "AAAA" + "#" * 14,
    "FR": "#" * 10 + "X" * 11 + "##",
    "ES": "#" * 20,
    "IT": "A" + "#" * 10 + "X" * 12,
    "NL": "AAAA" + "#" * 10,
    "CH": "#" * 5 + "X" * 12,
    "NO": "#" * 11,
    "BE": "#" * 12,
    "AT": "#" * 16,
    "PL": "#" * 24,
    "MT": "AAAA" + "#" * 5 + "X" * 18,
    "BR": "#" * 23 + "AX",
    "SE": "#" * 20,
    "SA": "##" + "X" * 18,
    "AE": "#" * 19,
}


def iban(draw: Draw) -> str:
    country = draw.choice(sorted(ACCOUNTS))
    kinds = {"#": DIGITS, "A": UPPER, "X": UPPER + DIGITS}
    body = "".join(draw.choice(kinds[sign]) for sign in ACCOUNTS[country])
    number = "".join(str(ord(sign) - 55) if sign.isalpha() else sign for sign in f"{body}{country}00")
    account = f"{country}{98 - int(number) % 97:02d}{body}"
    kind = draw.random()
    if kind < 0.1:
        return account.lower()
    return grouped(account, (4,) * 9, draw.choice([" ", " ", "-", NBSP])).rstrip(f" -{NBSP}") if kind < 0.6 else account


def ssn(draw: Draw) -> str:
    area = draw.choice([draw.randrange(1, 666), draw.randrange(667, 900)])
    return f"{area:03d}-{draw.randrange(1, 100):02d}-{draw.randrange(1, 10000):04d}"


def dni(draw: Draw) -> str:
    number = draw.randrange(1_000_000, 99_999_999)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23]
    kinds = [f"{number:08d}{letter}", f"{number:08d}-{letter}"]
    return draw.choice([*kinds, f"{number:,}-{letter}".replace(",", ".")])


def nie(draw: Draw) -> str:
    first, number = draw.randrange(3), draw.randrange(10**7)
    letter = "TRWAGMYFPDXBNJZSQVHLCKE"[(first * 10**7 + number) % 23]
    return draw.choice([f"{'XYZ'[first]}{number:07d}{letter}", f"{'XYZ'[first]}-{number:07d}-{letter}"])


def nir(draw: Draw) -> str:
    place = draw.choice([f"{draw.randrange(1, 96):02d}"] * 9 + ["2A", "2B"])
    head = f"{draw.choice('12')}{draw.randrange(100):02d}{draw.randrange(1, 13):02d}{place}"
    body = f"{head}{draw.randrange(1, 990):03d}{draw.randrange(1, 999):03d}"
    key = 97 - int(body.replace("2A", "19").replace("2B", "18")) % 97
    number = f"{body}{key:02d}"
    return grouped(number, (1, 2, 2, 2, 3, 3, 2), " ") if draw.random() < 0.6 else number


def codice_fiscale(draw: Draw) -> str:
    even = {sign: value for value, sign in enumerate(DIGITS)} | {sign: value for value, sign in enumerate(UPPER)}
    values = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23]
    odd = {sign: values[even[sign]] for sign in UPPER} | {sign: values[int(sign)] for sign in DIGITS}
    birth = f"{draw.randrange(100):02d}{draw.choice('ABCDEHLMPRST')}{draw.randrange(1, 32):02d}"
    body = text_of(draw, UPPER, 6) + birth + draw.choice(UPPER) + f"{draw.randrange(1000):03d}"
    total = sum((odd if place % 2 == 0 else even)[sign] for place, sign in enumerate(body))
    code = body + UPPER[total % 26]
    return code.lower() if draw.random() < 0.1 else code


def cpf(draw: Draw) -> str:
    number = text_of(draw, DIGITS, 8) + "1"
    for length in (9, 10):
        rest = sum(int(number[place]) * (length + 1 - place) for place in range(length)) % 11
        number += "0" if rest < 2 else str(11 - rest)
    return f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"


def bsn(draw: Draw) -> str:
    while True:
        number = text_of(draw, DIGITS, 9)
        total = sum(int(sign) * weight for sign, weight in zip(number, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True))
        if int(number) and total % 11 == 0:
            return number


def nino(draw: Draw) -> str:
    number = draw.choice(["AB", "CE", "JG", "SP", "PW"]) + text_of(draw, DIGITS, 6) + draw.choice("ABCD")
    return grouped(number, (2, 2, 2, 2), draw.choice([" ", ""]))


def national_id(draw: Draw) -> tuple[str, str]:
    kind = draw.randrange(9)
    if kind == 0:
        return draw.choice(["BSN: ", "Burgerservicenummer ", "mijn BSN is "]), bsn(draw)
    if kind == 1:
        lead = draw.choice(["SSN: ", "my SSN is ", "Social Security Number: "])
        return lead, ssn(draw).replace("-", draw.choice(["", " "]))
    if kind == 2:
        return draw.choice(["CPF: ", "meu CPF é "]), cpf(draw).replace(".", "").replace("-", "")
    return "", draw.choice([ssn, dni, nie, nir, codice_fiscale, cpf, nino])(draw)


def token(draw: Draw, pattern: str) -> str:
    """A token. The pattern, such as "ghp_ 36a", has a prefix, the number of characters, and a letter that names the
    alphabet.
    """
    prefix, _, rest = pattern.rpartition(" ")
    kinds = {"a": ALPHANUMERIC, "u": UPPER + DIGITS, "b": ALPHANUMERIC + "-_", "h": "0123456789abcdef"}
    alphabet = kinds[rest[-1]]
    return (
        prefix
        + text_of(draw, alphabet, int(rest[:-1]) - 1)
        + draw.choice(ALPHANUMERIC if rest[-1] == "b" else alphabet)
    )


TOKENS = listed(
    """
AKIA 16u|ASIA 16u|ghp_ 36a|gho_ 36a|ghs_ 36a|github_pat_ 22a|glpat- 20b|sk_live_ 24a|rk_live_ 99a|sk_test_ 24a|hf_ 34a
AIza 35b|GOCSPX- 28b|npm_ 36a|sk- 48a|sk-proj- 120b|sk-ant-api03- 95b|pypi-AgEIcHlwaS5vcmc 120b|whsec_ 32a|glptt- 40h
"""
)


def secret(draw: Draw) -> tuple[str, str]:
    kind = draw.randrange(10)
    if kind == 0:
        parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": text_of(draw, DIGITS, 10), "admin": True}]
        coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        return "", ".".join([*coded, text_of(draw, ALPHANUMERIC + "-_", 42) + "x"])
    if kind == 1:
        name = draw.choice(["RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "])
        lines = [text_of(draw, ALPHANUMERIC + "+/", 64) for _ in range(draw.randrange(1, 6))]
        between = draw.choice(["\n", "\\n"])
        return "", between.join([f"-----BEGIN {name}PRIVATE KEY-----", *lines, f"-----END {name}PRIVATE KEY-----"])
    if kind == 2:
        numbers = "-".join(text_of(draw, DIGITS, 12) for _ in range(2))
        return "", f"{draw.choice(['xoxb', 'xoxp'])}-{numbers}-{text_of(draw, ALPHANUMERIC, 24)}"
    if kind == 3:
        lead = draw.choice(["aws_secret_access_key = ", "AWS_SECRET_ACCESS_KEY=", "aws secret key: "])
        return lead, text_of(draw, ALPHANUMERIC + "/+", 40)
    if kind == 4:
        return "SendGrid ", f"SG.{text_of(draw, ALPHANUMERIC, 22)}.{text_of(draw, ALPHANUMERIC, 43)}"
    value = token(draw, draw.choice(TOKENS))
    return "", f"{value}_{text_of(draw, ALPHANUMERIC, 59)}" if value.startswith("github_pat_") else value


PLANTS: dict[str, Callable[[Draw], str | tuple[str, str]]] = {
    "email": email,
    "phone": phone,
    "ip_address": ip_address,
    "card": card,
    "iban": iban,
    "national_id": national_id,
    "secret": secret,
}


def plants(entity: str, count: int, seed: int) -> list[Planted]:
    """Texts with one planted value of the entity each."""
    draw = Draw(f"{entity} {seed}")
    found = []
    for number in range(count):
        drawn = PLANTS[entity](draw)
        lead, value = drawn if isinstance(drawn, tuple) else ("", drawn)
        frame = FRAMES[number % len(FRAMES)]
        if entity == "secret" and draw.random() < 0.1:
            frame, lead = "git clone https://{v}@git.example.org/a/b.git now", ""
            value = f"{text_of(draw, LOWER, 6)}:{text_of(draw, ALPHANUMERIC + '!-._', 12)}"
        before, after = (part.replace("{{", "{").replace("}}", "}") for part in frame.split("{v}"))
        bare = value.split("/")[0].rsplit(":", 1)[0] if entity == "ip_address" and "." in value else value
        start = len(before) + len(lead)
        found.append(Planted(f"{before}{lead}{value}{after}", start, start + len(bare)))
    return found
