"""Short questions with known answers for the experiment in context.py. There are 60 templates of the nine kinds in
data/reasoning.jsonl, and each template is filled nine times. No question of data/reasoning.jsonl was copied.

    questions()          # 540 questions; those of one template follow each other
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

FILLED = 9  # questions of each template

NAMES = "Amir Bella Cora Derek Elsa Farid Greta Hugo Ines Jonas Karl Lotte Marek Noemi Oskar Pia Rolf Selma Tariq Ulla"
THINGS = "marbles stamps buttons shells stickers beads coins pencils spoons ribbons blocks stones"
FOODS = "grapes beans noodles pancakes muffins plums carrots raisins peanuts dumplings"
COLORS = "red blue green yellow purple white brown black"
ANIMALS = "tiger camel parrot zebra rabbit lizard monkey pony"
ROOMS = "kitchen cellar bedroom garage hall attic bathroom"
GOODS = "kettle lamp mirror basket blanket hammer pillow clock vase bucket"
CONTAINERS = "bowl bag box basket jar bucket"
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]
MONTHS += ["November", "December"]
LARGER = [  # (larger and heavier, smaller)
    ("horse", "frog"),
    ("whale", "duck"),
    ("bus", "bicycle"),
    ("house", "tent"),
    ("truck", "pencil"),
    ("bear", "beetle"),
    ("piano", "flute"),
    ("sofa", "cup"),
    ("cow", "hen"),
    ("ship", "spoon"),
]
CATEGORIES = [  # (one of them, all of them, four members)
    ("a fruit", "fruits", ["peach", "mango", "cherry", "melon"]),
    ("a tool", "tools", ["hammer", "saw", "drill", "wrench"]),
    ("a vehicle", "vehicles", ["truck", "tram", "van", "bicycle"]),
    ("a bird", "birds", ["robin", "gull", "stork", "finch"]),
    ("a piece of clothing", "clothes", ["shirt", "jacket", "skirt", "sweater"]),
    ("a metal", "metals", ["zinc", "copper", "tin", "nickel"]),
    ("a piece of furniture", "furniture", ["table", "cupboard", "sofa", "desk"]),
    ("a vegetable", "vegetables", ["turnip", "leek", "cabbage", "pumpkin"]),
]
TASKS = [  # (task, what helps, what does not)
    ("cut a loaf of bread", "knife", "sponge"),
    ("dig a hole", "shovel", "pillow"),
    ("sweep the floor", "broom", "candle"),
    ("sew on a button", "needle", "ladle"),
    ("drive in a nail", "hammer", "towel"),
    ("water the garden", "hose", "ladder"),
    ("comb wet hair", "comb", "brick"),
    ("send a letter", "stamp", "fork"),
    ("see in a dark cave", "torch", "belt"),
    ("wipe up spilled milk", "cloth", "marble"),
]
FEELINGS = [  # (what a person did, how the person feels, how the person does not feel)
    ("ran for an hour", "tired", "rested"),
    ("ate nothing all day", "hungry", "full"),
    ("walked through the rain without a coat", "wet", "dry"),
    ("stood in the snow without shoes", "cold", "warm"),
    ("won the first prize", "happy", "sad"),
    ("lost a favorite toy", "sad", "happy"),
    ("drank nothing on the hot beach", "thirsty", "cold"),
    ("slept for ten hours", "rested", "tired"),
    ("heard a scream in the dark house", "scared", "bored"),
    ("waited three hours with nothing to do", "bored", "busy"),
]

# (kind, question, answer). Braces hold slots; `slots` draws their values.
TEMPLATES = [
    ("arithmetic", "{name} keeps {a} {things} in a drawer and puts in {b} more. How many {things} lie there?", "{sum}"),
    ("arithmetic", "A bin held {a} {things}. {name} took {b} of them. How many {things} stayed in it?", "{less}"),
    ("arithmetic", "Each shelf carries {a} {things}. How many {things} are on {c} shelves?", "{times}"),
    ("arithmetic", "{name} walked {a} miles and then {b} miles. How long was the whole way in miles?", "{sum}"),
    ("arithmetic", "{other} had {a} dollars and paid {b} dollars for {foods}. How many dollars remain?", "{less}"),
    ("arithmetic", "One ticket costs {a} dollars. What do {c} tickets cost in dollars?", "{times}"),
    ("arithmetic", "{c} children share {times} {things} equally. How many {things} does each child get?", "{a}"),
    ("arithmetic", "{name} is {a} years old, and {other} is {b} years older. How old is {other}?", "{sum}"),
    ("arithmetic", "One jar has {a} {things} and another has {b}. How many {things} do both have together?", "{sum}"),
    ("comparison", "{name} has {a} {things} and {other} has {b}. Who has more {things}?", "{name}"),
    ("comparison", "{other} jumped {b} feet and {name} jumped {a} feet. Who jumped farther?", "{name}"),
    ("comparison", "The {good} costs {a} dollars and the {good2} costs {b} dollars. Which is cheaper?", "{good2}"),
    ("comparison", "{name} woke up at {b} in the morning and {other} at {a}. Who woke up later?", "{other}"),
    ("comparison", "Which of the numbers {b} and {a} is larger?", "{a}"),
    ("comparison", "Which one is bigger in real life, the {small} or the {large}?", "{large}"),
    ("comparison", "{name} is shorter than {other}. Who is the taller of the two?", "{other}"),
    ("comparison", "The {good} weighs {b} pounds; the {good2} weighs {a} pounds. Which is lighter?", "{good}"),
    ("comparison", "{name} needed {a} minutes for the puzzle, but {other} only {b}. Who was quicker?", "{other}"),
    ("time", "{name} has a lesson on {day} and a test one day later. On which day is the test?", "{next_day}"),
    ("time", "{name}'s calendar shows {day}. Which day did it show yesterday?", "{day_before}"),
    ("time", "{other} left in {month} and came home one month later. In which month was that?", "{next_month}"),
    ("time", "{name} was born in the month before {next_month}. Which month is that?", "{month}"),
    ("time", "A train leaves at {hour} o'clock and rides for {c} hours. At what hour does it arrive?", "{later}"),
    ("time", "{name} began to read at {hour} and stopped at {later}. How many hours did {name} read?", "{c}"),
    ("time", "The {good} was mailed on {day} and needs two days. On which day does it get there?", "{day_after}"),
    ("time", "The show lasts {a} minutes, and {b} minutes are over. How many minutes are left?", "{less}"),
    (
        "time",
        "{name} waited {a} minutes, and {other} waited {b} minutes more. How many were {other}'s?",
        "{sum}",
    ),
    ("yesno", "Every {animal} in this zoo is {color}. {name} is a {animal} of this zoo. Is {name} {color}?", "yes"),
    ("yesno", "{name} ate all the {foods}. Are any of those {foods} left?", "no"),
    ("yesno", "The {container} is full of {foods}. Is the {container} empty?", "no"),
    ("yesno", "Is a {large} heavier than a {small}?", "yes"),
    ("yesno", "Does a {small} need more room than a {large}?", "no"),
    ("yesno", "{name} owns {a} {things}. Does {name} own more than {b} {things}?", "yes"),
    ("yesno", "The {foods} cost {a} dollars. {name} has only {b} dollars. Can {name} pay for the {foods}?", "no"),
    ("yesno", "All {things} in the {container} are {color}. {name} takes one out. Is it {color}?", "yes"),
    ("yesno", "{name} cooks on {day}. {other} cooks one day later. Does {other} cook on {next_day}?", "yes"),
    ("category", "Which of these words names {one}: {odd}, {member}, {odd2}?", "{member}"),
    ("category", "Should the {member} go with the {all} or with the {others}?", "{all}"),
    ("category", "{member}, {odd}, {member2}: which of the three is not {one}?", "{odd}"),
    ("category", "{name} wants to draw {one}. Should {name} draw a {odd} or a {member}?", "{member}"),
    ("category", "A list has the words {member}, {odd} and {member2}. Which word does not fit?", "{odd}"),
    ("sequence", "We count up by {c}: {a}, {up}, {up2}. Which number follows?", "{up3}"),
    ("sequence", "Somebody counts down by {c}: {up3}, {up2}, {up}. What does the person say now?", "{a}"),
    (
        "sequence",
        "Flags in a row are {color}, {color2}, {color}, {color2}. What color is the next flag?",
        "{color}",
    ),
    ("sequence", "Which letter follows {letter} in the alphabet?", "{next_letter}"),
    (
        "sequence",
        "{name} lays {things} in rows: one, two, three. How many {things} are in the next row?",
        "4",
    ),
    ("cause", "To {task}, does {name} need a {useless} or a {tool}?", "{tool}"),
    ("cause", "{name} wants to {task}. What helps more, the {tool} or the {useless}?", "{tool}"),
    ("cause", "{name} {did}. Is {name} now {feels_not} or {feels}?", "{feels}"),
    ("cause", "{other} {did}, while {name} {did2}. Who is probably {feels}?", "{other}"),
    ("cause", "Nobody can {task} with a {useless}. {name} has nothing but a {useless}. Can {name} do it?", "no"),
    ("deduction", "{name} sits in the {room}. The {good} stands beside {name}. In which room is the {good}?", "{room}"),
    ("deduction", "Either {name} or {other} took the {good}. It was not {name}. Who took it?", "{other}"),
    ("deduction", "{name} is older than {other}, and {other} is older than {third}. Who is the youngest?", "{third}"),
    (
        "deduction",
        "The {color} bag holds a {good}; the {color2} bag a {good2}. Which bag has the {good2}?",
        "{color2}",
    ),
    ("deduction", "{name} eats {foods} every {day}. Today is {day}. What does {name} eat today?", "{foods}"),
    ("counting", "{name} packs a {good}, a {good2} and a {good3}. How many things does {name} pack?", "3"),
    ("counting", 'How many letters has the word "{good}"?', "{letters}"),
    ("counting", "{name}, {other} and {third} bring {c} {foods} each. How many {foods} is that?", "{thrice}"),
    ("counting", "{name} has {c} dogs and no other animals. How many legs do the dogs have?", "{legs}"),
]


@dataclass(frozen=True)
class Asked:
    """A question with its known answer. `template` is the index of its template in TEMPLATES."""

    kind: str
    text: str
    answer: str
    template: int


def questions(seed: int = 0) -> list[Asked]:
    """`FILLED` different questions of each template, in the order of the templates."""
    draw = random.Random(seed)
    found = []
    for number, (kind, text, answer) in enumerate(TEMPLATES):
        filled: dict[str, Asked] = {}
        while len(filled) < FILLED:
            values = slots(draw)
            question = text.format_map(values)
            filled[question] = Asked(kind, question[0].upper() + question[1:], answer.format_map(values), number)
        found += filled.values()
    return found


def slots(draw: random.Random) -> dict[str, str]:
    """A value for each slot. Slots whose names differ only in a digit have different values. The number `a` is larger
    than `b`.
    """
    name, other, third = draw.sample(NAMES.split(), 3)
    color, color2 = draw.sample(COLORS.split(), 2)
    good, good2, good3 = draw.sample(GOODS.split(), 3)
    (one, everything, members), (_, others, odds) = draw.sample(CATEGORIES, 2)
    member, member2 = draw.sample(members, 2)
    odd, odd2 = draw.sample(odds, 2)
    large, small = draw.choice(LARGER)
    task, tool, useless = draw.choice(TASKS)
    did, feels, feels_not = draw.choice(FEELINGS)
    did2 = draw.choice([did for did, feeling, _ in FEELINGS if feeling != feels])
    a, c, hour = draw.randint(5, 12), draw.randint(2, 5), draw.randint(1, 7)
    b = draw.randint(2, a - 1)
    day, month, letter = draw.randrange(7), draw.randrange(12), draw.randrange(25)
    numbers = {"a": a, "b": b, "c": c, "sum": a + b, "less": a - b, "times": a * c, "thrice": 3 * c, "legs": 4 * c}
    numbers |= {"up": a + c, "up2": a + 2 * c, "up3": a + 3 * c, "hour": hour, "later": hour + c, "letters": len(good)}
    return {
        **{key: str(value) for key, value in numbers.items()},
        **{"name": name, "other": other, "third": third, "color": color, "color2": color2},
        **{"good": good, "good2": good2, "good3": good3, "things": draw.choice(THINGS.split())},
        **{"foods": draw.choice(FOODS.split()), "animal": draw.choice(ANIMALS.split())},
        **{"room": draw.choice(ROOMS.split()), "container": draw.choice(CONTAINERS.split())},
        **{"one": one, "all": everything, "others": others, "member": member, "member2": member2},
        **{"odd": odd, "odd2": odd2, "large": large, "small": small},
        **{"task": task, "tool": tool, "useless": useless},
        **{"did": did, "did2": did2, "feels": feels, "feels_not": feels_not},
        **{"day": DAYS[day], "next_day": DAYS[(day + 1) % 7], "day_after": DAYS[(day + 2) % 7]},
        **{"day_before": DAYS[(day - 1) % 7], "month": MONTHS[month], "next_month": MONTHS[(month + 1) % 12]},
        **{"letter": string.ascii_uppercase[letter], "next_letter": string.ascii_uppercase[letter + 1]},
    }
