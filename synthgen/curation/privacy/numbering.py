"""Public facts: telephone codes, lengths of bank account numbers, prefixes of payment cards, and ends of domains.

The tables are short texts, so that people can read them. Sources: ITU-T E.164 (telephone codes), the
SWIFT IBAN registry, ISO/IEC 7812 and the ranges that card schemes publish, and IANA's root zone.
"""

from __future__ import annotations


def _numbers(text: str) -> frozenset[int]:
    """The numbers in a text such as "7-9 11"."""
    numbers: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def words(text: str) -> tuple[str, ...]:
    """The words in a text."""
    return tuple(text.split())


CALLING_CODES: dict[str, frozenset[int]] = {
    code: _numbers(lengths)
    for lengths, codes in {
        "5-15": "49",
        "6-13": "43 63",
        "4-11": "352",
        "6-12": "39 359 381 598",
        "7-12": "62 86 90 91 972",
        "8-13": "66 81",
        "5-11": "354 358 375",
        "10": "1 7 52 58 225",
        "10-12": "30 234",
        "10-11": "54",
        "9-11": "55 56 966",
        "8-11": "57 65 92 593 886 977 502 503 504 507",
        "9": "33 34 41 93 94 211 212 218 221 240 242 244 249 251 255 256 260 261 262 351 420 590 594 596 992 994 995 "
        "998",
        "9-10": "44 98 380 881 996",
        "8-10": "20 53 60 61 64 82 84 229 230 378 506 850 855 880 856 964 970 976",
        "8-9": "31 32 36 40 48 51 213 224 233 237 250 258 264 377 382 387 591 595 689 852 962 963",
        "8": "45 47 216 222 223 226 227 228 232 235 236 253 257 266 268 350 356 357 370 371 373 374 389 505 509 800 "
        "973 993",
        "6-9": "27 46 252 376 386 421 423",
        "7-9": "220 231 245 248 265 355 385 967 968 971 974",
        "7-10": "95 243 254 263 353 372 679 960",
        "7-8": "241 267 501 599 670 675 853 961 965 975",
        "7": "238 239 246 269 291 297 592 673 674 677 680 683 686 690 691 692",
        "6-7": "298 299 508 597 672 676 681 685 687",
        "5-6": "247 290 500 682",
        "8-12": "383",
        "5-7": "678 688",
    }.items()
    for code in codes.split()
}
"""Maps the telephone code of a country to the numbers of digits that may follow the code. Countries whose numbers have
four digits, and satellite networks, are left out.
"""

IBAN_LENGTHS: dict[str, int] = {
    country[:2]: int(country[2:])
    for country in words(
        """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20
LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24
SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
    )
}
"""Maps a country to the number of characters of its IBANs."""

CARDS: tuple[tuple[int, int, frozenset[int]], ...] = tuple(
    (int(first), int(last), _numbers(lengths))
    for first, last, lengths in (
        ("4", "4", "13 16 19"),  # Visa
        ("51", "55", "16"),  # Mastercard
        ("2221", "2720", "16"),  # Mastercard
        ("34", "34", "15"),  # American Express
        ("37", "37", "15"),  # American Express
        ("6011", "6011", "16-19"),  # Discover
        ("644", "649", "16-19"),  # Discover
        ("65", "65", "16-19"),  # Discover
        ("300", "305", "14 16"),  # Diners Club
        ("3095", "3095", "14 16"),  # Diners Club
        ("36", "36", "14"),  # Diners Club
        ("38", "39", "14 16"),  # Diners Club
        ("3528", "3589", "16-19"),  # JCB
        ("62", "62", "16-19"),  # UnionPay
        ("5018", "5018", "13-19"),  # Maestro
        ("5020", "5020", "13-19"),  # Maestro
        ("5038", "5038", "13-19"),  # Maestro
        ("6304", "6304", "13-19"),  # Maestro
        ("6759", "6759", "13-19"),  # Maestro
        ("6761", "6763", "13-19"),  # Maestro
        ("2200", "2204", "16-19"),  # Mir
    )
)
"""(first prefix, last prefix, allowed numbers of digits) of the card schemes. All prefixes of a range have the same
length."""

COUNTRY_DOMAINS = frozenset(
    words(
        """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf cg
ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi
gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw
ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng
ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sk sl sm sn
so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws
ye yt za zm zw
"""
    )
)
"""Domains of countries, two letters each."""

FILE_ENDINGS = frozenset(
    words(
        """
avif bmp bz2 cfg conf cpp csv css dll doc docx exe gif heic htm html ico ini ipynb jar java jpeg jpg json jsonl jsx lock
log map mjs mp3 mp4 parquet pdf php png ppt pptx pyc scss sql svg tar tgz tiff toml tsv tsx ttf txt wav webp whl woff
woff2 xls xlsx xml yaml yml zip
"""
    )
)
"""Endings of file names, as in `logo@2x.png`. Such endings are not ends of domains."""
