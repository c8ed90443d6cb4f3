"""Measures the search for personal data and secrets: speed, recall and precision, and false hits in texts of your own.

    python benchmarks/privacy.py                      all tables
    python benchmarks/privacy.py data/gsm8k           and the values in all JSONL files of a folder

Speed is measured in one thread on texts of about 1 kB: sentences from the project's own pages, with a planted value in
1% of them. The search has two steps, as in curation. The first step selects the texts that may hold a value. The first
step uses RE2, which is part of pyarrow. If the package `hyperscan` is installed, the first step is measured with
Hyperscan too. The second step finds the values in the selected texts.

Recall and precision are measured on planted values and look-alikes. The tests draw such values with the same functions
(tests/support), but with another seed. A value is found if its place and its kind are exactly right.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from curation import sentences
from support.lookalikes import lookalikes
from support.planted import PLANTS, plants

from synthgen.curation.privacy import personal_data, redact
from synthgen.curation.privacy.find import Hit, hits_in
from synthgen.curation.privacy.likely import hint_bits, hint_names
from synthgen.curation.privacy.patterns import HINTS
from synthgen.executor import Services
from synthgen.records import Record, to_table
from synthgen.tables.curation_settings import PersonalData

_BATCH = 4096  # number of texts that are searched in one call


def found(texts: list[str] | pa.Array) -> dict[int, list[Hit]]:
    """Maps the index of each text that has values to these values."""
    texts = texts if isinstance(texts, pa.Array) else pa.array(texts)
    bits = hint_bits(texts)
    likely = np.flatnonzero(bits)
    pairs = zip(likely.tolist(), texts.take(pa.array(likely)).to_pylist(), strict=True)
    hits = {index: hits_in(text, hint_names(int(bits[index]))) for index, text in pairs}
    return {index: one for index, one in hits.items() if one}


def documents(count: int) -> tuple[list[str], int]:
    """Texts of about 1 kB, and the number of texts with a planted value."""
    draw = random.Random(7)
    parts = sentences()
    values = [one.text for entity in PLANTS for one in plants(entity, count // 100 // len(PLANTS) + 1, seed=11)]
    draw.shuffle(values)
    texts = []
    for number in range(count):
        text = ""
        while len(text) < 1000:
            text += draw.choice(parts) + ". "
        texts.append(f"{text}\n{values.pop()}\n" if number % 100 == 0 else text)
    return texts, (count + 99) // 100


def speed(count: int) -> None:
    """Prints how many texts a second each step searches, as the best of three runs."""
    texts, planted = documents(count)
    batches = [pa.array(texts[start : start + _BATCH]) for start in range(0, count, _BATCH)]
    size = sum(batch.nbytes for batch in batches) / count
    print(f"{count:,} texts of {size:,.0f} bytes, {planted:,} with a planted value, one thread")
    hint_bits(batches[0])
    selected = [bits for batch in batches for bits in hint_bits(batch).tolist()]
    _line("select likely texts, RE2", count, lambda: [hint_bits(batch) for batch in batches])
    if importlib.util.find_spec("hyperscan"):
        search = _hyperscan()
        others = [bits for batch in batches for bits in search(batch)]
        missed = [text for text, bits in zip(texts, others, strict=True) if not bits and hits_in(text, HINTS)]
        counts = sum(map(bool, others)), sum(map(bool, selected))
        print(f"  Hyperscan selects {counts[0]:,} texts, RE2 {counts[1]:,}. Hyperscan misses {len(missed)} values.")
        _line("select likely texts, Hyperscan", count, lambda: [search(batch) for batch in batches])
    else:
        print("  Hyperscan is not installed and was not measured")
    _line("select, and find the values", count, lambda: [found(batch) for batch in batches])
    rows = [_row(text, number) for number, text in enumerate(texts)]
    tables = [
        to_table(rows[start : start + _BATCH]).combine_chunks().to_batches()[0] for start in range(0, count, _BATCH)
    ]
    section, services = PersonalData(), Services()
    _line("check personal_data, rows", count, lambda: [personal_data(batch, section, services) for batch in tables])
    _line("edit redact, rows", count, lambda: [redact(batch, section, services) for batch in tables])


def _line(name: str, count: int, function: Callable[[], object]) -> None:
    seconds = []
    for _ in range(3):
        began = time.process_time()
        function()
        seconds.append(time.process_time() - began)
    print(f"  {name:<32} {count / min(seconds):10,.0f} a CPU-second")


def _row(text: str, number: int) -> Record:
    """A row with a short prompt and the text as its completion."""
    return Record(
        id=str(number),
        seed_id=str(number),
        split="train",
        task=None,
        strategy=None,
        prompt_version=None,
        prompt=[{"role": "user", "content": "Tell me something."}],
        completion=[{"role": "assistant", "content": text}],
        teacher=None,
    )


def _hyperscan() -> Callable[[pa.Array], list[int]]:
    """Returns a function that does the same as `hint_bits`: for each text of an array, it returns the bits of the
    hints.
    """
    import hyperscan

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    expressions = [(pattern.encode(), bit) for bit, patterns in enumerate(HINTS.values()) for pattern in patterns]
    patterns, bits_of_patterns = zip(*expressions, strict=True)
    database.compile(expressions=patterns, ids=bits_of_patterns, flags=[0] * len(patterns))

    def search(texts: pa.Array) -> list[int]:
        bits = np.zeros(len(texts), np.uint16)
        _, ends, data = texts.buffers()
        offsets = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        matches: list[int] = []
        database.scan(
            memoryview(data)[offsets[0] : offsets[-1]],
            match_event_handler=lambda bit, start, stop, flags, context: matches.append(stop << 4 | bit),
        )
        place = np.array(matches, np.int64)
        rows = np.searchsorted(offsets - offsets[0], place >> 4, side="left") - 1
        np.bitwise_or.at(bits, rows, np.left_shift(1, place & 15).astype(np.uint16))
        return bits.tolist()

    return search


def accuracy(count: int, seed: int) -> None:
    """Prints recall and precision of each entity on planted values and look-alikes."""
    print(f"\n| entity | planted | found | recall | look-alikes | false hits | precision |\n|{'---|' * 7}")
    for entity in PLANTS:
        planted, others = plants(entity, count, seed), lookalikes(entity, count, seed)
        hits = found([one.text for one in planted])
        places = {(index, hit.start, hit.stop) for index, one in hits.items() for hit in one if hit.entity == entity}
        right = sum((index, one.start, one.stop) in places for index, one in enumerate(planted))
        wrong = sum(map(len, hits.values())) - right + sum(map(len, found(others).values()))
        share = right / max(right + wrong, 1)
        print(f"| {entity} | {count:,} | {right:,} | {right / count:.1%} | {count:,} | {wrong} | {share:.1%} |")


def examples() -> None:
    """Prints how many of libphonenumber's example numbers are found, if the package `phonenumbers` is installed. The
    package has an example of a landline number and of a mobile number for each country.
    """
    if not importlib.util.find_spec("phonenumbers"):
        print("\nphonenumbers is not installed, so numbers of all countries were not tried")
        return
    import phonenumbers
    from phonenumbers import PhoneNumberFormat, PhoneNumberType

    countries = sorted(phonenumbers.SUPPORTED_REGIONS)
    kinds = (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE)
    every = [phonenumbers.example_number_for_type(country, kind) for country in countries for kind in kinds]
    numbers = [number for number in every if number]
    print(f"\n| {len(numbers)} example numbers of {len(countries)} countries | found |\n|---|---|")
    for name, form, before in (
        ("with the code of the country", PhoneNumberFormat.INTERNATIONAL, "Yes: "),
        ('national, after the word "phone"', PhoneNumberFormat.NATIONAL, "My phone: "),
        ("national, without such a word", PhoneNumberFormat.NATIONAL, "Yes: "),
    ):
        texts = [f"{before}{phonenumbers.format_number(number, form)}. Bye." for number in numbers]
        values = {index: [texts[index][hit.start : hit.stop] for hit in one] for index, one in found(texts).items()}
        right = sum(texts[index][len(before) : -6] in one for index, one in values.items())
        print(f"| {name} | {right / len(numbers):.1%} |")


def folder(path: Path) -> None:
    """Prints how many values are found in the strings of all JSONL files of a folder, and the places of some."""
    for file in sorted([path] if path.is_file() else path.rglob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        texts = [value if isinstance(value, str) else json.dumps(value) for row in rows for value in row.values()]
        hits = found(texts)
        counts = Counter(hit.entity for one in hits.values() for hit in one)
        kinds = ", ".join(f"{entity} {number}" for entity, number in sorted(counts.items())) or "no value"
        print(f"{file}: {len(rows):,} rows, {len(texts):,} texts: {kinds}")
        for index, one in list(hits.items())[:10]:
            print("   ", one[0].entity, repr(texts[index][max(0, one[0].start - 30) : one[0].stop + 20]))


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder with JSONL files, or one such file")
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--values", type=int, default=3_000, help="planted values and look-alikes of each entity")
    options = parser.parse_args()
    speed(options.texts)
    accuracy(options.values, seed=12)
    examples()
    if options.folder:
        print()
        folder(options.folder)


if __name__ == "__main__":
    main()
