"""Finds the words with which assistants begin before they answer, in English, German, Spanish, French and Chinese.

    Sure! Here is a list of three rivers:          an assent and an announcement
    Of course! I'd be happy to help with that.     an assent and an offer
    Great question!                                praise

An assent alone is not cut, because it may be the answer: "Certainly! The Rhine is longer." An announcement alone is not
cut either, because people write "Here are three rivers:" as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_LONGEST = 150  # maximum number of characters of an announcement


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The expressions of one language, which ignore case."""

    assents: str
    praise: str
    offers: str
    announces: str
    """How an announcement begins. An announcement ends with a colon."""

    @cached_property
    def compiled(self) -> tuple[re.Pattern[str], ...]:
        """The expressions for praise, assent, offer and announcement, each with the mark that ends it."""
        end = r"\s?[!.！。]+(?:\s+|(?<=[！。]))"
        parts = (
            rf"(?:{self.praise}){end}",
            rf"¡?(?:{self.assents})\s?[!.,:！。，、–—-]+\s*",
            rf"(?:{self.offers})[^\n.!:！。：]{{0,80}}{end}",
            rf"(?:{self.announces})[^\n.!?:：！？。]{{0,{_LONGEST}}}(?::(?=\s)|：)\s*",
        )
        return tuple(re.compile(part, re.IGNORECASE) for part in parts)


OPENINGS = {
    "en": Opening(
        assents=r"sure(?: thing)?|certainly|of course|absolutely|definitely|gladly|no problem|okay|ok|alright",
        praise=r"(?:that['’]s an? |what an? )?(?:great|good|excellent|interesting|fantastic|wonderful) question",
        offers=r"(?:i['’]d|i would|i['’]ll|i will|i am|i['’]m) (?:be )?(?:happy|glad|pleased|delighted) to (?:help|"
        r"assist|do)|i can (?:help|assist)|let me help|happy to help|glad to help",
        announces=r"(?:here(?: is| are|['’]s)|below (?:is|are))\b",
    ),
    "de": Opening(
        assents=r"(?:na |aber )?(?:klar|natürlich|gerne?|sicher|sicherlich|selbstverständlich)|kein problem|okay",
        praise=r"(?:das ist eine )?(?:sehr )?(?:gute|tolle|interessante|spannende|ausgezeichnete) frage",
        offers=r"ich helfe (?:dir|ihnen|euch)?|ich kann (?:dir|ihnen|euch) (?:dabei |damit )?helfen",
        announces=r"(?:hier (?:ist|sind|findest du|finden sie|kommt|kommen|hast du|haben sie)|im folgenden|nachfolgend|"
        r"unten (?:ist|sind|findest|finden))\b",
    ),
    "es": Opening(
        assents=r"claro(?: que sí)?|por supuesto|desde luego|seguro|con (?:mucho )?gusto|cómo no|sin problema",
        praise=r"¡?(?:(?:esa )?es una )?(?:muy )?(?:buena|excelente|gran|interesante) pregunta",
        offers=r"(?:estar[ée]|estoy|estaría) encantad[oa] de ayudar|(?:con gusto )?(?:te|le|os|les) ayud|puedo ayudar",
        announces=r"(?:aquí (?:tienes?|está|están|te dejo|le dejo|va|van)|a continuación|"
        r"te presento|le presento)\b",
    ),
    "fr": Opening(
        assents=r"bien sûr|certainement|absolument|avec (?:grand )?plaisir|d['’]accord|volontiers|pas de problème|"
        r"bien entendu",
        praise=r"(?:c['’]est une )?(?:très )?(?:bonne|excellente|intéressante) question",
        offers=r"je (?:serai|serais|suis) (?:ravie?|heureux|heureuse|enchantée?) de (?:vous|t['’]|te )|"
        r"je (?:peux|vais) (?:vous |t['’])aider",
        announces=r"(?:voici|voilà|ci-dessous|vous trouverez)(?!\w)",
    ),
    "zh": Opening(
        assents=r"当然可以|当然|好的|没问题|没有问题|可以的?|好",
        praise=r"(?:这是一?个)?(?:非常|很)?好的?问题",
        offers=r"我?(?:很|非常)?(?:乐意|高兴|愿意)能?(?:为|帮|协助)",
        announces=r"(?:以下|下面|这里)(?:是|为|就是|列出)",
    ),
}
"""The expressions by language. Each expression is matched where the previous match ended."""

LIKELY = r"(?i)^\s*(?:" + "|".join(f"¡?(?:{o.assents})|(?:{o.praise})|(?:{o.offers})" for o in OPENINGS.values()) + ")"
"""An expression for Arrow that matches every text which begins with an assent, praise or an offer. This expression
saves time: other texts are not searched."""


def answer_begins(text: str) -> int:
    """The place where the answer begins after the opening words. 0 if the text does not begin with opening words, or
    has no text after them.
    """
    start = len(text) - len(text.lstrip())
    ends = (_end(text, start, opening) for opening in OPENINGS.values())
    return next((end for end in ends if end and text[end:].strip()), 0)


def _end(text: str, start: int, opening: Opening) -> int:
    """The place where the opening words end in one language. 0 without them."""
    praise, assent, offer, announcement = opening.compiled
    praised = _after(praise, text, start)
    assented = _after(assent, text, praised or start)
    offered = _after(offer, text, assented or praised or start)
    announced = _after(announcement, text, offered or assented or praised or start)
    if announced and (offered or assented or praised):
        return announced
    return offered if offered and (assented or praised) else praised


def _after(pattern: re.Pattern[str], text: str, start: int) -> int:
    found = pattern.match(text, start)
    return found.end() if found else 0
