"""Texts that seem to contain personal data or secrets, but contain none. The texts are drawn with a seed.

for text in lookalikes("phone", 300, seed=1):
    ...
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

from support.planted import ALPHANUMERIC, DIGITS, FRAMES, UPPER, Draw, filled, iban, listed, text_of, with_luhn


def damaged(draw: Draw, value: str, places: str) -> str:
    """A copy of `value` in which one character that is in `places` is replaced by another character of `places`."""
    indexes = [index for index, sign in enumerate(value) if sign in places]
    index = draw.choice(indexes)
    return value[:index] + draw.choice([sign for sign in places if sign != value[index]]) + value[index + 1 :]


EMAIL = listed(
    """
@ann_lee|user@localhost|logo@2x.png|icon@3x.svg|git@github.com:org/repo.git|lodash@4.17.21|3 apples @2.50 each
@app.route|foo @ bar.com|ann@|@example.com|x@3.5|@user@social.example|%s@%s.com|{user}@{host}.com|root@db1
SELECT @total.value|a@b|Meet @ 9.30|def f(a @ b).T|score 3@4|user@.com|me@home|actions/checkout@v4
type T @interface.Name|price@12.99|react@18.2.0
"""
)

PHONE = listed(
    """
2024-01-1# 10:30:##|1#.0@.202# 14:##|01/0@/202# 11:00|202#-0@-1#T10:30:00+0100|978-0-306-4061#-#|0-306-4061#-2
0.123456####|3.14159265####|1 234 567 8##|12 345 678|$1,234,567,8##|MM#-2#0-1000 = -9##|555-12## = 7##
x = +4930123456# * 2|7 + 493012345##|ORD-2024-00123##|AB-123-456-78##|SKU 0123456789##|(123) 456-78##|123-456-78##
911-555-01##|1990-2000 and 2001-2010|03 12 25 33 4#|01-07-19-22-4#|40.712776, -74.0059##|400638133393#|1##2##3##4##5
12345 67890 1234|550e8400-e29b-41d4-a716-44665544####|MM#N4##### people|about 9######## stars|192.168.100.1##
12:30:45.123456###|+1 (012) 345-67##|+999 12345678##|+12 345 678 9##|GMT+0100 2024|1,234,567,89# calls|id=84529384##
v2.0.202401##|0##########|5 000 000 000|#.##e+1#|±0.00012345##|page 1234567890#|(1 + 2) +493012345##
"""
)

IP_ADDRESS = listed(
    """
version 1.2.3.4|v10.4.12.7|release 12.0.4.#|section 4.1.2.#|§ 3.2.1.#|Chrome/120.0.6099.1##|numpy==1.26.4.#|256.1#.#.1
1.2.3|1.2.3.4.5|999.12.1.#|192.168.1.1#|10.0.0.2#|127.0.0.1|0.0.0.0|172.16.0.#|255.255.255.0|nginx-1.25.3.1.tar.gz
3.141.59.26.5|01.02.03.04|Kapitel 2.11.4.#|upgrade from version 98.52.40.1# to 98.52.41.0|chapter 12.1.10.#
firmware 104.20.33.1#|1.3.6.1.4.1.311|1.10.2.3 Scope|12:30:45|00:1a:2b:3c:4d:5e|std::dec|abc::def|a::b|::1|fe80::1
fd12:3456::1|00:11:22:33:44:55:66:77|7:30:15:22|Foo::Bar|12:34:56:78|1.2.3.4 Overview of the parts|build 120.4.33.9#
ff02::1|dead::beef|1:2:3:4|Figure 10.20.30.4#
"""
)

SECRET = listed(
    """
ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx|AKIAXXXXXXXXXXXXXXXX|sk_live_xxxxxxxxxxxxxxxxxxxxxxxx|hf_hub_download
sk-learn|sk-ocean-waves-and-other-long-names-of-classes-that-go-on|AKIAI44QH8|ghp_short|-----BEGIN PUBLIC KEY-----
eyJhbGciOi.eyJzdWIi|the line "-----BEGIN RSA PRIVATE KEY-----" begins the file|https://ann@git.example.org/x
http://localhost:8080/a@b|xox-games|postgres://{user}:{password}@{host}/db|https://$USER:$PASS@host|AIza is a prefix
https://example.org:443/@ann|npm_config_registry|sk-proj-this-name-is-only-a-name-and-has-no-random-part-in-it
glpat-xxxxxxxxxxxxxxxxxxxx|redis://localhost:6379/0|whsec_test|YOUR_API_KEY|api_key = os.environ["OPENAI_API_KEY"]
password: ********|AWS secret manager is a service|gh_pages_branch
"""
)


def phone(draw: Draw) -> str:
    return filled(draw, draw.choice(PHONE)).replace("\u00a0", " ")


def ip_address(draw: Draw) -> str:
    return filled(draw, draw.choice(IP_ADDRESS))


def email(draw: Draw) -> str:
    return draw.choice(EMAIL)


def card(draw: Draw) -> str:
    right = with_luhn(draw, draw.choice(["4", "51", "6011"]), 16)
    return draw.choice(
        [
            damaged(draw, right, DIGITS),
            with_luhn(draw, draw.choice(["1", "7", "8", "9", "0"]), 16),
            f"0.{right}",
            f"{right} + 1 = 2",
            f"3 * {right}",
            f"${right}",
            right + "1234567",
            f"a{right}",
            " ".join(text_of(draw, DIGITS, 3) for _ in range(6)),
            f"17{text_of(draw, DIGITS, 11)}",
            f"{right[:4]}-{right[4:8]}-{damaged(draw, right[8:12], DIGITS)}-{right[12:]}",
            text_of(draw, "0123456789abcdef", 40),
        ]
    )


def account(draw: Draw) -> str:
    right = iban(draw).upper().replace(" ", "").replace("-", "").replace("\u00a0", "")
    return draw.choice(
        [
            right[:4] + damaged(draw, right[4:], DIGITS),
            damaged(draw, right[:4], DIGITS) + right[4:],
            right[:-1],
            right + "7",
            "ZZ" + right[2:],
            " ".join(["AB12", *(text_of(draw, UPPER + DIGITS, 4) for _ in range(3))]),
            text_of(draw, "0123456789abcdef", 32),
            str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        ]
    )


def national_id(draw: Draw) -> str:
    number = draw.randrange(10**7, 10**8)
    letters = "TRWAGMYFPDXBNJZSQVHLCKE"
    wrong = draw.choice([letter for letter in letters if letter != letters[number % 23]])
    return draw.choice(
        [
            f"{number}{wrong}",
            filled(draw, draw.choice(["000-12-34##", "666-12-34##", "9##-12-3@##", "123-00-45##", "123-45-0000"])),
            filled(draw, "123-45-67## = -6#"),
            filled(draw, "4## 12 3@##"),
            filled(
                draw, draw.choice(["12-34-56##", "12345-67##", "202#-01-1#", "9########", "1-2-3", "100-20-1# = 6#"])
            ),
            f"ABCDEF{number}X",
            filled(draw, "1 85 05 78 006 084 3@") if draw.random() < 0.5 else filled(draw, "111.111.111-1#"),
            filled(draw, "order 1@#.4@#.7@#-A#"),
            f"BG {filled(draw, '## ## ##')} A",
            text_of(draw, "0123456789ABCDEF", 24),
            f"the factory {text_of(draw, DIGITS, 6)} of the street",
        ]
    )


def secret(draw: Draw) -> str:
    kind = draw.random()
    if kind < 0.7:
        return draw.choice(SECRET)
    if kind < 0.8:
        return text_of(draw, "0123456789abcdef", draw.choice([32, 40, 64]))
    if kind < 0.9:
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))
    return text_of(draw, ALPHANUMERIC + "+/", 60) + "=="


LOOKALIKES: dict[str, Callable[[Draw], str]] = {
    "email": email,
    "phone": phone,
    "ip_address": ip_address,
    "card": card,
    "iban": account,
    "national_id": national_id,
    "secret": secret,
}


def lookalikes(entity: str, count: int, seed: int) -> list[str]:
    """Texts that seem to contain a value of the entity, but contain none."""
    draw = random.Random(f"none {entity} {seed}")
    texts = []
    for number in range(count):
        before, after = FRAMES[number % len(FRAMES)].replace("{{", "{").replace("}}", "}").split("{v}")
        texts.append(f"{before}{LOOKALIKES[entity](draw)}{after}")
    return texts
