"""The phrases with which assistants decline a request, in five languages.

Each expression is searched in one sentence in the form of `simple`: lower case, straight apostrophes, no marks of
Markdown, and contractions of English written out ("can't" is "cannot").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_CONTRACTIONS = (
    (re.compile(r"\bcan(?:'t| not)\b|\bcant\b"), "cannot"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bain't\b"), "am not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(i|we)'m\b"), r"\1 am"),
    (re.compile(r"\b(i|we|it|that)'d\b"), r"\1 would"),
    (re.compile(r"\b(i|we|it)'ll\b"), r"\1 will"),
    (re.compile(r"\b(i|we)'ve\b"), r"\1 have"),
    (re.compile(r"\b(that|it|this|there|here)'s\b"), r"\1 is"),
)
_CHINESE = "\u3400-\u9fff"
_BETWEEN = re.compile(rf"(?<=[{_CHINESE}，。])\s+|\s+(?=[{_CHINESE}])")


def simple(sentence: str) -> str:
    """The sentence in the form in which the expressions are searched."""
    text = sentence.lower().translate(_SAME)
    for pattern, written in _CONTRACTIONS:
        text = pattern.sub(written, text)
    return _BETWEEN.sub("", " ".join(text.split()))


_SAME = str.maketrans({mark: "'" for mark in "’‘ʼ`´＇"} | dict.fromkeys("*_#>~\u200b\ufeff")) | {ord("，"): ","}


@dataclass(frozen=True, kw_only=True)
class Language:
    """The expressions of one language."""

    declines: tuple[str, ...]
    """The writer says that they cannot or will not do something."""
    idioms: str
    """Expressions that begin like one of `declines` and mean something else. They are matched where it was found."""
    openers: str
    """How a sentence that declines may begin before it declines, and how a sentence before it may begin."""
    everything: str
    """Declines the whole request and not a part of it. It is searched from where the sentence declines."""
    although: str
    """Words that begin a clause after which the main clause follows."""
    contrast: str
    """Words before a clause or sentence that answers after all."""
    weak: str
    """The writer says that they cannot or will not do something, whatever it is. It counts only where `support` is found
    in the same or in the next two sentences.
    """
    support: str
    """What assistants say when they decline: an apology, what they are, or why the request is a bad one."""
    closing: str
    """A sentence after a refusal that does not answer: a reason, an offer, advice to ask somebody else."""
    free_order: bool = False
    """Whether an object may stand before the verb, so that any few words may stand before the refusal."""

    @cached_property
    def found(self) -> re.Pattern[str]:
        """Any of `declines`."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.declines))

    @cached_property
    def compiled(self) -> dict[str, re.Pattern[str]]:
        """The other expressions by their names."""
        names = ("idioms", "openers", "everything", "although", "contrast", "closing", "weak", "support")
        return {name: re.compile(getattr(self, name)) for name in names}


_I = r"\bi(?:,? (?:\w+ly|just|also|do|must|still|too|and|am afraid,? (?:that )?i|cannot and))*,? "
_UNABLE = (
    r"(?:(?:cannot|could not|will not|would not|should not|must not|may not)(?: \w+ly| even| just| and will not| be able"
    r" to| in good conscience)*|am (?:\w+ly )?(?:unable to|incapable of|prohibited from|not (?:\w+ly )?(?:able|going|"
    r"allowed|permitted|authorized|authorised|willing|programmed|designed|equipped|trained|built|intended|here|qualified|"
    r"in a position|at liberty|supposed|capable of|comfortable(?: with)?))(?: to)?|(?:decline|refuse|have chosen not|"
    r"would (?:rather|prefer|choose) not|prefer not|choose not)(?: to)?|do not (?:feel comfortable|feel right|want to|wish to|think i "
    r"(?:should|can)|have the (?:\w+ )?(?:ability|capability|capacity|means|authority|tools) to|(?:\w+ )?know how to)|lack "
    r"the (?:ability|capability|capacity) to)"
)
_DO = (
    r"(?:be (?:able to )?(?:help|assist|of (?:help|assistance))|help(?:ing)?\b|assist|compl(?:y|ying)|fulfil|oblige|"
    r"accommodat|facilitat|endors|speculat|diagnos|generat|disclos|provid(?:e|ing)\b(?! for)|produc|engag(?:e|ing) (?:in|"
    r"with)|participat(?:e|ing) in|take part|promot(?:e|ing)|go along|carry out|proceed|condone|(?:do|doing|say|saying) "
    r"(?:that|this|it|so)\b|(?:answer|respond|reply|comment|speak|advise)(?:ing)?(?: to| on| you| any| your| this| that| "
    r"the question| these| such| questions|[.,!]|$)|(?:giv|offer|shar|tell|show|teach|send|mak|creat|writ|compos|draft|"
    r"discuss|recommend|predict|verify|confirm|reveal|describ|explain|access|open|view|see|watch|read|play|listen to|"
    r"translat|summari[sz]|support|encourag|continu|complet|execut|perform|simulat|role-?play|design|develop|cod|identif|"
    r"express|form|brows|search|look up|call|order|book|process|suggest|rank|rate|judge|pretend|act|impersonat|display|"
    r"draw|interact|order|purchas|schedul|remind|hav|hold)(?:e|ing|ying|y)?\b (?:you\b(?! up)|this\b|that\b|these\b|those\b|"
    r"such\b|any|your\b|about\b|how\b|personal|specific|detailed|medical|legal|financial|real|harmful|explicit|external|live|"
    r"current|images?|links?|files?|videos?|audio|emails?|phone|web|websites?|urls?|pictures?|photos?|the (?:\w+ ){0,2}"
    r"(?:internet|web|link|file|image|video|page|website|url|attachment|document|request|content|story|essay|text|"
    r"article|answer|question|conversation|task|password|code|lyrics|picture|photo|site|future|news|weather)\b|an? (?:\w+[ -]"
    r"){0,4}(?:story|essay|poem|joke|article|code|opinion|script|letter|email|review|message|scene|speech|song|plan|list|"
    r"guide|tutorial|program|malware|virus|exploit|password|diagnosis|prescription|prediction|preference|post|"
    r"text|paper|report|summary|translation|link|image|file|phone call|reservation|person|answer|response|figure|price)\b|"
    r"(?:\w+[ -]){0,4}(?:content|instructions|information|material|advice|software|malware|feelings|emotions|opinions|"
    r"guidance|data|details|stories|jokes|images|violence|links|recommendations|reviews|preferences|purposes|poems|"
    r"conversations|topics|requests|activities|steps|lyrics|messages|code)\b|in (?:real|that|this)|on behalf|as (?:if|a|an)\b))"
)
_AI = (
    r"(?:(?:an?|your|just an?|only an?|merely an?|simply an?) (?:\w+[ -]){0,4}?(?:ai|artificial intelligence|language model|llm|"
    r"chatbot|virtual assistant|computer program)(?:[ -](?:powered|based|driven))?(?: (?:language |text )?(?:model|assistant|system|program|chatbot|entity|tool|"
    r"bot|being))?(?: (?:developed|trained|created|made|built|designed|programmed|from|by)\b[^,.]{0,50})?)(?=,| and| so| i\b|$|[.;])"
)
_I_NOT = r"\bi (?:\w+ly |still |also |just )?(?:do not|cannot|am not|am unable|have no\b|lack|will not|must decline|should not|am prohibited|am only able|could not|would not|may not)"

ENGLISH = Language(
    declines=(
        _I + _UNABLE + " " + _DO,
        rf"\b(?:as|being|since i am|because i am|i am|am) {_AI}[^.]{{0,120}}?{_I_NOT}",
        r"\bi do not (?:have|possess|hold)(?: the| any| an?)? (?:(?:ability|capability|capacity) to|(?:\w+ )?(?:personal|"
        r"subjective|emotion|feeling|opinion|belief|preference|real-?time|consciousness|internet|browsing|physical)|access to "
        r"(?:\w+[ -]){0,4}(?:real-?time|internet|web|live|current|external|personal|your|data|information|up-to-date|files?|"
        r"news|links?|private|specific|records|databases?)|(?:\w+ )?(?:information|data) (?:about|on|regarding) (?:private|"
        r"specific|individual|any))",
        r"\bi do not (?:\w+ly )?(?:engage in|create|write|produce|provide|generate|participate in|support|share|assist|offer|"
        r"condone|discuss|help with) (?:\w+[ -]){0,4}(?:content|material|requests|that|this|activities|topics|"
        r"instructions|information|advice|opinions|violence|stories|of any kind|images|discrimination)",
        r"\b(?:is|are) not (?:something|a (?:request|task|topic|subject))(?: that| which)? i\b",
        r"(?:that|this|it|which)(?:, however,|, unfortunately,)? is (?:simply |really |unfortunately |also )?(?:not |just not )?(?:something|a (?:request|task|topic|question|"
        r"subject)|a line|one)(?: that| which)? i (?:am|can\b|cannot|will|would|do not|should|could|have to)",
        r"\bis (?:not )?(?:something|a (?:request|task|topic))(?: that| which)? i (?:am (?:not|un)|cannot|will not|do not|have to decline)",
        r"(?:^|\b(?:this|that|it|your|the|such|what you are asking(?: for)?)\b) ?(?:\w+ ){0,4}(?:goes|go|violates?|is|are|"
        r"conflicts?|falls?|would (?:violate|go|be)|exceeds?|contravenes?|breaches|lies) ?(?:\w+ ){0,2}(?:against|outside|beyond|with|"
        r"within|in line with|consistent with|of)?(?: of)? ?(?:my|our|openai's?|the (?:content|usage|safety|community))(?: \w+){0,3} ?"
        r"(?:polic|guidelines|scope|capabilit|programming|terms|principles|expertise|rules|values|purpose|abilities|limits|area)",
        r"\b(?:it|that) (?:is|would be|is also) (?:\w+ly )?(?:not (?:\w+ly )?(?:appropriate|ethical|possible|right|okay|acceptable|safe|"
        r"responsible)|inappropriate|unethical|impossible|irresponsible|wrong|against)(?: or \w+)? (?:for me|of me|my)\b",
        r"\bit would be (?:\w+ly )?(?:inappropriate|unethical|irresponsible|wrong|illegal|dangerous)(?: and \w+| or \w+)? (?:for me )?to "
        r"(?:provide|help|assist|write|create|share|give|generate|speculate|answer|discuss)",
        r"\bmy (?:\w+ ){0,3}(?:guidelines|programming|training|policies|policy|principles|design|instructions|creators|rules|"
        r"developers|purpose)[^.]{0,60}?(?:prevents?|prohibits?|not (?:allow|permit|let)|forbids?|restricts?|stops?|"
        r"prohibited)",
        r"\bi (?:must|have to|need to|will have to|am going to have to|will|would like to|am obliged to|should|do)?(?: \w+ly)? ?"
        r"(?:decline|refuse|pass on this|abstain|opt out)(?:\b(?! in\b)|$)",
        r"\bi (?:must|have to|need to|am (?:programmed|designed|trained|required|instructed|obligated) (?:to )?)(?: \w+ly)? ?(?:avoid|"
        r"refrain|not to|abstain|reject|turn down)",
        r"\bi have been (?:programmed|designed|instructed|trained|told|asked) (?:not to|to (?:avoid|refuse|decline))",
        r"\bi am not comfortable\b|\bi do not feel comfortable\b|\bi do not think (?:i should|it is appropriate|it would be)"
        r"|\bi am not the right (?:tool|assistant|source)",
        r"^(?:sorry,? (?:but )?|no, |unfortunately,? )?(?:cannot|unable to|not able to|will not) (?:help|assist|comply|answer|fulfil|do that|"
        r"provide|process|be able to)",
        r"\b(?:helping|assisting)\b[^.]{0,60}(?:not possible|off the table|not an option)",
        r"\b(?:let us|could we|can we|shall we) (?:talk about something else|change the (?:topic|subject)|move on to)",
    ),
    idioms=(
        r".{0,25}?\b(?:help (?:but|it\b|myself|feeling|thinking|noticing|wondering|smiling|laughing|loving|being|falling|admiring)"
        r"|(?:tell|show|express) you (?:how (?:\w+ly )?(?:much|happy|glad|excited|grateful|proud|sorry|many|often|good|great|relieved|thrilled))"
        r"|(?:give|recommend|support|endorse|describe) (?:this|it|that|these|them|you)[^.]{0,30} (?:enough|more)\b"
        r"|(?:refuse|decline) to (?:believe|accept|give up|be\b)|see (?:this|that|it) (?:going|working|ending|happening)|help you (?:if|unless|until)\b)"
    ),
    openers=(
        r"(?:i am (?:\w+ |deeply )?sorry|i (?:\w+ly |do |can |completely )?(?:understand|appreciate|know|see\b|hear|get\b|realize|recognize|apologi[sz]e|regret|want|"
        r"would|thank|care|do not|cannot|will|must|strongly|need|believe|think|feel|hope|wish|am (?:an?|just|only|afraid|really|here|glad|happy|committed|programmed|designed|flattered|aware)|am,|have to)|sorry|(?:my |please accept my |sincere )?apologies|"
        r"apologi[sz]e|unfortunately|regrett?ably|regretfully|sadly|thanks?\b|while|although|though|even though|as\b|since|because|"
        r"given|due to|that\b|this\b|it\b|your|what you|such|the (?:request|question|topic|content|story|scenario)|no\b|nope|never\b|absolutely|certainly|definitely|hello|hi\b|hey|well|oh|okay|ok\b|hmm|um|ah|to be|in (?:order|this case|good)|"
        r"with (?:all )?(?:due )?respect|providing|helping|creating|writing|generating|sharing|discussing|making|"
        r"giving|assisting|engaging|however|but\b|and\b|so\b|therefore|please|for|my\b|if you|being|at this time|currently|honestly|look\b|listen|great question|good question|interesting|"
        r"without|despite|out of|under|there is no|harass|using|it sounds)"
    ),
    everything=(
        r".*?(?:comply|compliance|fulfil|(?:help|assist)\w*(?: you)?(?: with)?(?: doing)?(?: any of)? ?(?:that|this|it|such|your request|the request|those|these|"
        r"this request|that request)?(?: (?:request|one|kind of|type of|sort of|particular)[^,]*)?[.!;]*$|(?:do|doing|write|writing|answer|"
        r"discuss|create|generate|say) (?:that|this|it|so)\b|answer (?:your|the|any)|(?:decline|refuse)\b)"
    ),
    weak=(
        _I + _UNABLE + r" (?!(?:come|attend|make it|join|go\b|sleep|wait|stay|eat|believe|agree|imagine|stop|stand\b|find|think|decide|afford|be\b|"
        r"meet|stress|emphasi[sz]e|overstate|thank|complain|promise|get\b|help|tell a lie|understand|take\b|keep|live\b|forget|sugarcoat|feel|"
        r"love|speak for|lie\b|let\b|resist|explain why|leave|give up|remember (?:when|where|the last)|pretend|say\b|see\b|recommend)\b)\w+"
    ),
    support=(
        r"\b(?:sorry|apolog\w*|unfortunately|regrett?\w*|afraid|ai|language model|computer program|request|illegal|unlawful|harm\w*|danger\w*|"
        r"\w*ethic\w*|polic(?:y|ies)|guidelines?|copyright\w*|privacy|private|mislead|crime|criminal|unsafe|safety|minors?|consent|violen\w*|"
        r"hate\w*|discriminat\w*|dishonest\w*|decei\w*|threat\w*|abus\w*|something else|happy to|professional|against (?:the|my)|stalk\w*|weapon\w*)\b"
    ),
    although=r"^(?:while|although|though|even though|as much as|despite)\b",
    contrast=r"[,;—–-] ?(?:but|however|though|although|yet|still)\b,? |^(?:however|that said|still|but|nevertheless|having said|nonetheless|in general|generally|typically)\b,? ",
    closing=(
        r"\b(?:(?:i|we) (?:can|could|would|am|will|do|must|have|encourage|suggest|recommend|strive|aim|urge|hope|understand|apologi)|i'd|happy to|glad to|"
        r"feel free|let me know|if you (?:have|need|would|are|want|or|know|know|paste|share|provide|could|can|like|feel|suspect|think|believe)|is there (?:any|some)|would you like|"
        r"how about|what about|how can i|instead|perhaps|please|thank|sorry|illegal|unlawful|crime|criminal|dangerous|harm|unethical|violen|unsafe|injur|legal(?:ly)?|"
        r"law\b|laws|guideline|policy|policies|privacy|respect|sensitive|inappropriate|disrespect|professional|consult|seek|contact|reach out|"
        r"hotline|prioriti|my purpose|my (?:goal|role|aim|training|knowledge)|ethic|moral|rights|consent|safe(?:ty|r)?\b|dishonest|misinformation|stereotyp|"
        r"discriminat|hate|offensive|trust|wrong|risk|serious|consequences|alternatively|local|qualified|as an ai|official|website)"
    ),
)

_DE_DO = (
    r"(?:helfen|weiterhelfen|weiter helfen|behilflich|beantworten|nachkommen|entsprechen|erfüllen|unterstützen|bereitstellen|zur verfügung|erstellen|"
    r"generieren|verfassen|schreiben|geben|nennen|teilen|tun|machen|ausführen|durchführen|stellen|anbieten|beraten|"
    r"äußern|eingehen|zugreifen|abrufen|öffnen|programmieren|produzieren|liefern|diskutieren|kommentieren|bearbeiten|"
    r"übernehmen|empfinden|fühlen|sagen|ausgeben|herausgeben|weitergeben|preisgeben|besprechen|behandeln|spekulieren|antworten|"
    r"vorhersagen|einsehen|ansehen|lesen|zusammenfassen|übersetzen|mitteilen|bewerten|beurteilen|fördern|befürworten|"
    r"verraten|erklären|beitragen|mitwirken|beteiligen|teilnehmen|wiedergeben|ausdenken|empfehlen|verbreiten|verwenden|anzeigen|buchen|bestellen|anrufen|fortsetzen|fortfahren|dienen|haben)"
)
GERMAN = Language(
    declines=(
        r"(?:\bich (?:kann|darf|möchte|werde|will|könnte)|\b(?:kann|darf|möchte|werde|will|könnte) ich|\b(?:kann|darf) und (?:darf|werde|will|möchte))\b[^.!?]{0,90}?\b"
        rf"(?:nicht|kein\w*|weder|nichts)\b[^.!?]{{0,110}}?\b(?:\w+zu)?{_DE_DO}\b",
        rf"\bich (?:kann|darf|werde)\b[^.!?]{{0,60}}\b(?:unmöglich|keinesfalls)\b[^.!?]{{0,60}}\b{_DE_DO}\b",
        r"\b(?:helfe|unterstütze|beantworte|erstelle|verfasse|mache|tue|gebe) ich (?:\w+ ){0,5}(?:nicht|kein)",
        r"\bich (?:helfe|unterstütze|erstelle|beantworte|verfasse|generiere|gebe|schreibe|teile|biete) (?:\w+ ){0,4}(?:nicht(?! (?:gern|nur|mehr|viel))|kein\w*)(?! (?:\w+ )?ruhe)",
        r"(?:\bich bin|\bbin ich)\b[^.]{0,40}\bnicht (?:\w+ )?(?:in der lage|befugt|berechtigt|imstande|autorisiert|bereit|fähig|"
        r"(?:darauf |dafür |dazu )?(?:programmiert|gemacht|ausgelegt|da\b|trainiert|entwickelt))(?! gewesen)",
        r"\b(?:es ist mir|mir ist es|ist es mir|ist mir)\b[^.]{0,40}?(?:nicht (?:möglich|erlaubt|gestattet)|unmöglich|untersagt)",
        r"\b(?:ich (?:muss|möchte|werde|will)|muss ich|möchte ich)\b[^.]{0,80}?(?:ablehnen|verweigern|absehen|zurückweisen|verzichten|passen)\b",
        r"\bich (?:lehne|verweigere|weigere)\b[^.]{0,80}",
        r"(?:verstößt|verstoßen|widerspricht|widersprechen|nicht vereinbar|unvereinbar|nicht im einklang|verletzt|nicht mit)[^.]{0,50}?(?:\w*richtlinie|(?:meine|unsere)\w* (?:\w+ )?(?:grundsätze|regeln|prinzipien|"
        r"programmierung|werte)|nutzungsbedingungen)",
        r"\b(?:anfrage|bitte|frage|wunsch)\b[^.]{0,20}\bkann (?:ich |hier |so )?(?:leider )?nicht\b|\bich weiß (?:leider )?nicht,? wie ich (?:ihnen|dir)[^.]{0,40}helfen",
        r"\bals (?:(?:ein|eine|einer|reines|reine|virtueller|virtuelle|textbasierte\w?|großes|künstliche\w?|digitaler?|digitale|ihr|dein|bloße\w?) ){0,3}(?:ki|ai|intelligenz|sprachmodell|"
        r"(?:ki|ai)-\w*(?:modell|assistent\w*|system|sprachmodell|programm|chatbot)|chatbot|computerprogramm|assistent|assistentin)\b(?!-)[^.]{0,60}?\b(?:habe|kann|bin|besitze|"
        r"verfüge|darf|empfinde|werde|fühle|möchte|nehme|erlebe|äußere)\b[^.]{0,80}?\b(?:kein\w*|nicht|weder|nie|nur)\b",
        r"\b(?:ich bin|da ich) (?:nur |lediglich |bloß )?(?:eine? )?(?:ki|künstliche intelligenz|sprachmodell|ki-\w+|computerprogramm)\b[^.]{0,100}?\b(?:kein\w*|nicht|weder)\b",
        r"(?:\bich habe|\bhabe ich|\bich besitze)\b[^.]{0,30}?\bkein\w* (?:\w+ )?(?:zugriff|zugang|echtzeit\w*|persönliche\w*|eigene[nr]? (?:meinung|gefühl)|gefühle|meinung|bewusstsein|"
        r"möglichkeit|informationen über|befugnis|aktuellen (?:daten|informationen))",
        r"\bich verfüge[^.]{0,30}?(?:nicht über|über kein)",
        r"\bfühle (?:ich )?mich[^.]{0,40}nicht wohl",
        r"(?:liegt|fällt|ist)[^.]{0,20}(?:außerhalb|jenseits) mein|übersteigt mein|nicht in meinen? (?:zuständig|bereich|möglichkeiten)",
        r"\bes (?:wäre|ist) (?:\w+ )?(?:nicht (?:angemessen|ethisch|richtig|vertretbar|verantwortbar|in ordnung)|unangemessen|unethisch|verantwortungslos|unverantwortlich)[^.]{0,15}(?:, (?:dass ich|wenn ich|hier)|"
        r"für mich|von mir|, [^.]{0,50}zu (?:geben|schreiben|erstellen|liefern|spekulieren|helfen))",
        r"\b(?:lass|lassen sie) uns (?:lieber |bitte )?(?:über etwas anderes|das thema wechseln)",
        r"\bist (?:leider )?nichts,? (?:wobei|womit|bei dem|was) ich\b",
    ),
    idioms=r".{0,40}?(?:nicht (?:oft |nachdrücklich |eindringlich )?genug|(?:gar|kaum) nicht? sagen, wie|nicht anders|weigere mich,? zu glauben|nicht (?:nur|umhin)|nicht sagen, wie (?:sehr|froh|glücklich|dankbar)|keinen hehl|nicht mehr länger)",
    openers=(
        r"(?:es tut mir|tut mir|das tut mir|entschuldig|verzeih|sorry|leider|bedauer|ich bedau|ich entschuldige|als\b|ich (?:verstehe|weiß|schätze|bin|danke|kann (?:gut )?(?:verstehen|nachvollziehen))|vielen dank|"
        r"danke|nein|da\b|weil|obwohl|auch wenn|bei\b|dies\w*\b|das\b|dabei|hallo|guten|zu\b|aber\b|so\b|jedoch|allerdings|ihre|deine|die\b|der\b|oh|hm|aus\b|aufgrund|es ist|es wäre|wegen|mir\b|wenn|zwar|gern|um\b)"
    ),
    everything=(
        r".*?(?:\b(?:weiter)?helfen\.?$|behilflich sein|nachkommen|(?:diese|ihre|deine)\w* (?:bitte|anfrage|frage|wunsch|anliegen)|das kann ich|\bdas\b[^.]{0,20}(?:tun|beantworten|machen)|ablehnen|helfe ich|"
        r"(?:anfrage|bitte|frage|wunsch) (?:nicht|leider)|dabei nicht|nicht dabei)"
    ),
    weak=(
        r"(?:\bich (?:kann|darf|möchte|werde|will|könnte)|\b(?:kann|darf|möchte|werde|will|könnte) ich|\b(?:und|aber|daher|deshalb) (?:kann|darf|werde|möchte))\b"
        r"(?!.*\b(?:kommen|besuchen|schlafen|warten|glauben|verstehen|entscheiden|erinnern|dabei sein|finden|erwarten|leiden|vorstellen|ausstehen|versprechen|gehen|bleiben|fahren|treffen|essen)\b)"
        r"[^.!?]{0,90}?\b(?:nicht|kein\w*|weder|nichts)\b|\b(?!habe|hatte|wäre)\w+e ich\b[^.!?:,]{0,30}?\b(?:nicht|keine?)\b"
    ),
    support=(
        r"\b(?:leid|entschuldig\w*|bedau\w*|leider|verzeih\w*|ki|sprachmodell|anfrage|illegal|strafbar|straftat|verboten|gefährlich\w*|schad\w*|unethisch|ethisch\w*|richtlinie\w*|"
        r"urheber\w*|datenschutz|privat\w*|hilfreich und|sicherheit|gewalt\w*|hass\w*|diskriminier\w*|beleidig\w*|drohung\w*|täusch\w*|verletz\w*|etwas anderes|verstehe|betrug|hacken|waffe\w*)\b"
    ),
    although=r"^(?:obwohl|auch wenn|zwar|wenngleich|wenn auch)\b",
    contrast=r"[,;–—] ?(?:aber|jedoch|doch|allerdings|dafür)\b |^(?:aber|jedoch|allerdings|trotzdem|dennoch|grundsätzlich|allgemein|im allgemeinen)\b ",
    closing=(
        r"\b(?:bitte|gern\w*|gibt es|kann ich (?:ihnen|dir)|ich (?:kann|könnte|bin|würde|empfehle|rate|helfe|verstehe|hoffe|stehe)|wenn (?:sie|du)|falls|wende\w*|stattdessen|vielleicht|danke|tut mir leid|illegal|verboten|strafbar|gefährlich\w*|schad\w*|"
        r"unethisch|gewalt|gesetz\w*|richtlinie\w*|privatsphäre|respekt\w*|fachperson|fachmann|anwalt|anwält\w*|arzt|ärzt\w*|hilfe|notruf|sicher\w*|professionell\w*|beleidig\w*|diskriminier\w*|recht\w*|verletz\w*|möchten sie|möchtest du|wie wäre|lassen sie|lass uns|offiziell\w*|kopieren)\b"
    ),
    free_order=True,
)

_ES_DO = (
    r"(?:ayudar|asistir|cumplir|responder|contestar|proporcionar|proveer|dar(?:te|le|les|os)?\b(?! (?:más|un paso|crédito))|ofrecer|brindar|generar|crear|"
    r"escribir|redactar|producir|compartir|hacer(?:lo\b| (?:eso|esto|algo así|ese|esa|lo que|recomendaciones|predicciones|llamadas|comentarios|diagn))|discutir|hablar|opinar|participar|acceder|navegar|abrir|ver (?:imágenes|archivos|enlaces|el|la|tu|esa|ese|videos)|"
    r"continuar|completar|atender|satisfacer|facilitar|revelar|divulgar|apoyar|promover|recomendar|realizar|ejecutar|"
    r"decir(?:te|le|les)?\b|comentar|predecir|diagnosticar|sentir (?:emociones|amor|nada)|experimentar|tener (?:emociones|sentimientos|opiniones|una|preferencias)|complacer|contribuir|colaborar|procesar|traducir|"
    r"resumir|mostrar|enseñar|explicar|emitir|expresar|involucrar|conversar|fomentar|aceptar (?:esa|esta|tu|su) (?:solicitud|petición)|enviar|reservar|reproducir|leer (?:el|la|tu|ese|archivos)|buscar|seguir con|adoptar|fingir|especular|juzgar|consultar|verificar|confirmar)"
)
SPANISH = Language(
    declines=(
        r"\bno (?:(?:me|te|le|lo|les|se|os) ){0,2}(?:puedo|podré|podría|debo|voy a|quiero|deseo|logro|(?:estoy|me encuentro) (?:en (?:condiciones|posición|capacidad)|"
        r"autorizad\w|capacitad\w|diseñad\w|programad\w|dispuest\w|facultad\w|habilitad\w)(?: de| para| a)?|soy capaz de|tengo "
        r"(?:permitido|la (?:capacidad|posibilidad|facultad|autorización) de|permiso para)|es posible|está permitido|resulta posible|siento cómod\w|sería (?:apropiado|ético|correcto|responsable))\b"
        rf"[^.]{{0,40}}?\b(?:{_ES_DO})",
        r"\bno (?:me siento|estoy) cómod\w (?:con|\w+ndo)",
        r"\b(?:lamento|siento|lamentablemente|perdona por)(?: mucho)? no poder\b",
        r"\b(?:me (?:es|resulta)) imposible\b|\bno (?:creo|pienso|considero) que (?:deba|sea)\b|\bno me corresponde\b|\bno (?:sé|entiendo) cómo (?:podría|puedo) ayudar\w*|\bno est[áa] (?:dentro de|entre) mis\b",
        r"\b(?:debo|tengo que|he de|necesito|quisiera|voy a tener que|prefiero|me veo obligad\w a)(?: respetuosamente)? (?:negarme|rechazar|declinar|rehusar|abstenerme|no (?:responder|hablar|hacer|escribir|opinar|comentar))|\bme (?:niego a|abstengo)|\b(?:^|yo )rechazo\b",
        r"\bno (?:te |le |os |les |lo )?(?:haré(?: eso| esto| algo| tal|$|[.,])|ayudaré|escribiré|crearé|generaré|proporcionaré|daré (?:instrucciones|información|consejos|detalles|esa)|participaré|responderé|compartiré)",
        r"\bno (?:es|son) (?:algo|una (?:tarea|pregunta|solicitud)|un tema) (?:con l[oa] que|que|en l[oa] que|a l[oa] que|sobre el que)(?: yo)? (?:pueda|puedo|esté|me)",
        r"\bno (?:es|sería|considero|me parece|creo que sea) (?:apropiado|ético|correcto|adecuado|posible)\b[^.]{0,20}(?:que yo|para mí|por mi parte|(?:dar|escribir|hablar|opinar|especular|compartir|proporcionar|generar))",
        r"(?:va(?:n)?|iría|está|atenta) (?:en )?contra (?:de )?(?:mis|las|nuestras|mi)\b|\b(?:viola|infringe|incumple|contraviene|no cumple(?: con)?|excede|entra en conflicto con)\b[^.]{0,20}(?:mis|las|nuestras|mi|los)\b[^.]{0,30}(?:políticas?|normas?|directrices|principios|condiciones|pautas|reglas|programación|capacidad\w*|lineamientos)",
        r"\b(?:fuera|más allá) de (?:mis?|mi) (?:alcance|capacidad\w*|ámbito|límites|área)|\bmis? (?:\w+ )?(?:directrices|políticas|normas|programación|principios|pautas|diseño)[^.]{0,40}(?:no (?:me )?permiten?|(?:me )?impiden?|(?:me )?prohíben?)",
        r"\b(?:no (?:tengo|poseo|dispongo de|cuento con)|carezco de)\b (?:(?:una|la|el|las|los|mis|propias|ningún|ninguna) ){0,2}(?:acceso|capacidad de|opinión|opiniones|sentimientos|emociones|preferencias|(?:información|datos) (?:en tiempo|actualizad|personal|sobre personas)|experiencias|creencias|habilidad|permitido|"
        r"forma de (?:acceder|saber)|un cuerpo|cuerpo|conciencia|recuerdos)",
        r"\b(?:como|soy|siendo|al ser) (?:(?:una?|simple|solo|gran|un asistente|asistente|virtual|de|modelo|programa|sistema|sólo|tu) ){0,4}(?:ia|inteligencia artificial|modelo (?:de|lingüístico)\b[^,.]{0,25}|chatbot|asistente (?:virtual|de ia))\b(?! (?:que )?(?:investig|ingenier))[^.]{0,100}?\b(?:no|carezco|ni)\b",
        r"\b(?:cambiemos|podemos cambiar|hablemos) de (?:tema|otra cosa)|\bno (?:genero|creo|escribo|produzco|proporciono|participo en|apoyo|comparto|ofrezco) (?:\w+ ){0,2}(?:contenido|material|instrucciones|información|consejos|ese tipo|este tipo)",
    ),
    idioms=r".{0,15}?(?:niego a (?:creer|aceptar)|dejar de|evitar|recomendar\w*[^.]{0,25} (?:lo suficiente|más|suficiente)|esperar|creer|decir\w* (?:lo |cuánto|cuán|qué tan)|explicar\w* (?:lo |cuánto)|hablar más|ayudar en nada más|quiero hablar)",
    openers=(
        r"(?:lo siento|lo lamento|lamento|siento|lamentablemente|desafortunadamente|desgraciadamente|por desgracia|disculp|perd[oó]n|mis disculpas|te pido|le pido|pido|como\b|entiendo|comprendo|sé que|gracias|agradezco|"
        r"no,|no\b|aunque|si bien|dado que|debido a|ya que|porque|es[ao]\b|est[aeo]\b|tu\b|su\b|hola|buen|ante todo|primero|quiero|debo|sin embargo|pero\b|así que|por\b|actualmente|en este momento|soy\b|a pesar|con todo respeto|respet|ay|vaya|mmm|ese|"
        r"proporcionar|ayudar|crear|escribir|generar|al\b|honestamente|siendo|con\b|es una|es importante|para\b|me temo|al ser|yo\b|qué\b)"
    ),
    everything=(
        r".*?(?:cumplir|ayudar(?:te|le|les|los?)?(?: con| en)?(?: (?:eso|esto|ello|esa|esta|ese|este|tu|su)\b[^,]{0,40})?[.!]*$|(?:esa|esta|tu|su) (?:solicitud|petición|pregunta)|hacer (?:eso|esto)|negarme|rechazar|declinar|haré|no poder ayudar|ayudaré|ayudarte|contra de)"
    ),
    weak=(
        r"\bno (?:(?:me|te|le|lo|la|les|se|os) ){0,2}(?:puedo|podré|podría|voy a|debo|quiero|pienso)\b (?!(?:ir|venir|dormir|esperar|creer|llegar|estar|encontrar|imaginar|asistir|acudir|salir|quedar|dejar|evitar|parar|más|perder|vivir|ver|pensar|decidir|prometer|olvidar|negar|tomar)\w*\b)\w+"
    ),
    support=(
        r"\b(?:siento|lamento|lamentablemente|disculp\w*|perd[oó]n\w*|desafortunadamente|temo|ia|inteligencia artificial|modelo de lenguaje|asistente virtual|solicitud|petición|ilegal\w*|delito|peligro\w*|dañ\w*|"
        r"\w*étic\w*|políticas?|normas?|derechos de autor|privacidad|privad\w*|engañ\w*|segur\w*|violen\w*|odio|discrimin\w*|amenaz\w*|acos\w*|menor(?:es)?|trampa|profesional|entiendo|comprendo|otra cosa|arma\w*)\b"
    ),
    although=r"^(?:aunque|si bien|a pesar de|pese a)\b",
    contrast=r"[,;–—] ?(?:pero|sin embargo|aunque|no obstante)\b,? |^(?:sin embargo|pero|no obstante|aun así|en general|por lo general)\b,? ",
    closing=(
        r"\b(?:puedo|podría|podríamos|estaré|estoy|te recomiendo|le recomiendo|recomiendo|sugiero|por favor|si (?:necesitas|tienes|quieres|deseas|estás|necesita|tiene|quiere|desea|conoces|crees|pegas|compartes|copias)|hay (?:algo|alguna)|te gustaría|le gustaría|qué tal|en su lugar|en cambio|quizás?|tal vez|gracias|"
        r"ilegal\w*|peligros\w*|dañ\w*|ética?\w*|violen\w*|segur\w*|ley(?:es)?|legal\w*|normas?|políticas?|privacidad|respet\w*|profesional\w*|consult\w*|abogad\w*|médic\w*|ayuda\w*|busc\w*|contact\w*|discrimin\w*|odio|ofensiv\w*|mi (?:objetivo|propósito|función)|derechos|delito|grave\w*|riesgo\w*|oficial\w*|puedes (?:consultar|copiar|pegar|buscar|acudir|llamar)|hazme)\b"
    ),
)

_FR_DO = (
    r"(?:aider|assister|répondre|fournir|donner(?! tort)|satisfaire|accéder|générer|créer|écrire|rédiger|produire|partager|faire (?:cela|ça|ce\b|une telle|de telles|de prédiction|ceci)|discuter|"
    r"commenter|participer|poursuivre|continuer cette|compléter|réaliser|exécuter|divulguer|révéler|promouvoir|soutenir|encourager|"
    r"recommander|ouvrir|consulter|naviguer|voir (?:les|l'|la|le|votre|ton|des)|lire (?:les|l'|la|le|votre|ton|des|ce)|diagnostiquer|prédire|prévoir|ressentir|éprouver|dire (?:quel|ce|si|comment|où|qui)|communiquer|proposer|offrir|"
    r"traiter|donner suite|honorer|accepter (?:cette|votre|ta)|exprimer|émettre|tomber amoureu|traduire|résumer|apporter (?:d'aide|mon|de)|avoir (?:d'|de |une)|porter|contribuer|collaborer|inventer|vérifier|envoyer|réserver|poser|prendre (?:parti|position)|me prononcer|"
    r"conseiller|expliquer|décrire|imaginer|formuler|juger|spéculer|prescrire|interpréter|effectuer|simuler|jouer (?:ce|le rôle|un rôle)|montrer|transmettre|rechercher|chanter)"
)
FRENCH = Language(
    declines=(
        r"\bje (?:ne|n')\W?(?:\w+ ){0,2}?(?:peux|pourrai|pourrais|puis|saurais|vais|dois|souhaite|veux|désire|compte)\b(?: (?:malheureusement|donc|pas|vraiment|simplement|hélas|toutefois|cependant|en aucun cas|ni|plus|et ne veux|et ne vais))*"
        rf"[^.]{{0,35}}?\b{_FR_DO}",
        rf"\b(?:et|mais|donc) (?:je )?ne (?:peux|dois|vais|souhaite)(?: donc| pas| malheureusement)*[^.]{{0,25}}?\b{_FR_DO}",
        r"\bje ne suis(?: malheureusement| donc)? (?:pas|ni)(?: \w+ment)? (?:en mesure|capable|autorisée?|habilitée?|à l'aise|programmée?|conçue?|disposée?|en capacité|apte|qualifiée?|censée?|là pour)",
        r"\bje ne (?:(?:vous|te|t'|le|la|l'|y) ?){0,2}(?:aiderai|ferai|fournirai|écrirai|répondrai|donnerai|participerai|créerai|partagerai|rédigerai|générerai) pas\b",
        r"\bil (?:m'est|me semble|m'est malheureusement) (?:donc |malheureusement )?(?:impossible|interdit)|m'est pas (?:\w+ )?(?:possible|permis|autorisé)",
        r"\bje (?:refuse|décline|m'abstiens|m'abstiendrai)\b|\bje (?:dois|me dois|préfère|vais devoir|me vois|suis|me permets de|souhaite)\b[^.]{0,50}?\b(?:décliner|refuser|m'abstenir)",
        r"\bne pas pouvoir\b|\bje ne (?:pense|crois|trouve) pas (?:qu'il (?:soit|serait)|que ce soit|devoir|pouvoir)\b|\bil ne m'appartient pas\b",
        r"\bje préfère(?:rais)? ne pas\b[^.]{0,20}(?:répondre|écrire|discuter|aborder|continuer|faire|parler|me prononcer|donner)",
        r"\bce n'est pas (?:quelque chose|une (?:tâche|demande|question)|un sujet)[^.]{0,25}\b(?:je|j')",
        r"(?:\b(?:va|vont|irait|est|serait|sont) (?:\w+ment )?(?:à l'encontre|contraires?|incompatibles?)|\b(?:enfreint|viole|contrevient|ne respecte pas|ne correspond pas|dépasse|sort))\b[^.]{0,25}?(?:mes|nos|mon|les|la|ma|l')[^.]{0,25}(?:règles?|politiques?|principes?|directives?|conditions|charte|éthique|cadre|capacités|compétences|programmation|consignes|valeurs)",
        r"\b(?:en dehors|au-delà|hors) de (?:mes|mon|ma) (?:compétences|capacités|domaine|champ|portée)|\bmes? (?:règles|directives|principes|programmation|consignes|politiques)[^.]{0,40}(?:interdi|empêch|ne me permet)",
        r"\bje n'ai (?:malheureusement |donc )?(?:pas|ni|aucune?) ?(?:accès|(?:d'|de |la |le )?(?:opinions?|sentiments?|émotions?|préférences?|capacité|possibilité|avis|corps|conscience|expériences?|informations? (?:sur|en temps|personnel)|données|vie|croyances?|accès|convictions?))",
        r"\bje ne (?:dispose|possède|ressens|éprouve|bénéficie) (?:\w+ment )?pas\b",
        r"\b(?:en tant (?:que |qu')|étant |je (?:ne )?suis (?:qu')?)(?:(?:une?|simple|grand|assistant|assistante|virtuel|virtuelle|programme|d'|l'|système|outil|qu'|votre|basé sur l'|basée sur l') ?){0,4}(?:ia|intelligence artificielle|modèle (?:de|d'|linguistique)\b[^,.]{0,25}|chatbot|programme informatique|agent conversationnel|assistante? (?:virtuel|numérique|ia|vocal)\w*)\b[^.]{0,110}?(?:\bne\b|\bn'|\bpas\b)",
        r"\bil (?:n'est pas|ne serait pas) (?:approprié|éthique|convenable|correct|acceptable|responsable)[^.]{0,20}(?:pour moi|que je|de ma part|de (?:donner|fournir|rédiger|spéculer|parler))|\bil serait (?:inapproprié|irresponsable|contraire)",
        r"\b(?:changeons|parlons) (?:de sujet|d'autre chose)|\bje ne (?:crée|rédige|produis|fournis|génère|partage|participe|cautionne|soutiens|donne) pas (?:à |de |d'|ce |cette )",
    ),
    idioms=r".{0,20}?(?:refuse de (?:croire|penser)|peux que|m'empêcher|saurais trop|saurais assez|(?:recommander|conseiller)[^.]{0,20} (?:assez|davantage|suffisamment)|dire (?:à quel point|combien)|attendre)",
    openers=(
        r"(?:je (?:suis (?:\w+ment |vraiment |sincèrement )?(?:désolé|navré|conscient|un|une|flatté)|m'excuse|regrette|comprends|sais|vous (?:remercie|prie)|te remercie|crains|ne\b|n')|désolée?|navrée?|malheureusement|hélas|pardon|excus|toutes mes|mes excuses|veuillez|en tant|merci|"
        r"non\b|bien que|même si|étant|puisque|comme\b|car\b|cette|cel|ce\b|votre|ta\b|ton\b|bonjour|salut|cependant|toutefois|mais\b|donc\b|il\b|pour\b|à l'heure|actuellement|afin|sauf|oh|hum|fournir|aider|créer|rédiger|avec tout|par\b|c'est|en raison|d'après|selon|bonne question|j')"
    ),
    everything=(
        r".*?(?:satisfaire|(?:vous |t'|te )aider(?: (?:avec|à|pour|dans) (?:cela|ça|ce\w*|votre|faire cela)\b[^,]{0,40})?[.!]*$|(?:cette|votre|ta) (?:demande|question|requête)|faire (?:cela|ça|ceci)|refuse|décliner|décline|ferai|aiderai|encontre)"
    ),
    weak=(
        r"\b(?:je (?:ne |n')(?:\w+ ){0,2}?(?:peux|puis|pourrai|vais|dois|veux|souhaite)|je (?:ne |n')(?:(?:vous|te|le|la|les|y|en) )?\w+rai (?:pas|jamais|aucun))\b(?: (?:donc|pas|malheureusement))* ?"
        r"(?!(?:être|venir|dormir|croire|attendre|trouver|assister|aller|imaginer|rester|partir|plus|vivre|penser|décider|promettre|oublier|nier|que|manger|me joindre|vous rejoindre|vous voir|voir)\b)\w+"
    ),
    support=(
        r"(?:\b(?:désolée?|navrée?|excus\w*|malheureusement|regrette|hélas|pardon|crains|ia|intelligence artificielle|modèle de langage|assistant virtuel|demande|illéga\w*|illicite\w*|délit|danger\w*|nuire|nuisible\w*|\w*éthique\w*|"
        r"politiques?|droits? d'auteur|confidentialité|privée?s?|tromp\w*|sécurité|violen\w*|haine|haineu\w*|discrimin\w*|menace\w*|harc\w*|mineure?s?|tricher|professionnel|comprends|autre chose|punie?s?|loi|arme\w*))\b"
    ),
    although=r"^(?:bien que|même si|quoique|malgré)\b",
    contrast=r"[,;–—] ?(?:mais|cependant|toutefois|néanmoins|en revanche)\b,? |^(?:cependant|toutefois|mais|néanmoins|en général|en revanche)\b,? ",
    closing=(
        r"\b(?:je (?:peux|pourrais|suis|vous|te|serais|recommande|comprends|reste)|puis-je|n'hésite\w*|si (?:vous|tu)|y a-t-il|souhaitez|aimeriez|voulez|veuillez|s'il vous|s'il te|peut-être|plutôt|merci|illéga\w*|illicite\w*|dangereu\w*|nuisible\w*|nuire|éthique\w*|violen\w*|sécurité|sûr\w*|loi|lois|légal\w*|règles?|politiques?|vie privée|respect\w*|"
        r"professionnel\w*|consult\w*|avocat\w*|médecin\w*|aide\w*|contact\w*|adress\w*|discrimin\w*|haine|offens\w*|mon (?:but|rôle|objectif)|droits?|risque\w*|grave\w*|délit|vous pouvez (?:copier|consulter|coller|contacter|vérifier)|site|officiel\w*)\b"
    ),
)

_ZH_AI = r"(?:人工智能|ai|语言模型|大模型|智能助手|虚拟助手|聊天机器人|机器人|计算机程序|电脑程序|程序|智能助理|人工智慧|語言模型)"
_ZH_DO = (
    r"(?:提供|回答|回复|协助|帮助|帮你|帮您|帮忙|帮到|满足|完成|生成|撰写|编写|写|创作|讨论|评论|发表|访问|打开|浏览|查看|查询|告诉|告知|分享|透露|支持|参与|执行|做(?:这|那|到|出)|处理|给出|给您|给你|为您|为你|回应|继续|诊断|推荐|预测|感受|体验|表达|"
    r"总结|翻译|解答|应对|遵从|遵守|答应|配合|谈论|描述|展示|扮演|获取|代替|替您|替你|编造|制作|鼓励|播放|发送|预订|拨打|置评|答复|作答|泄露|指导|教你|教您|判断|識別|協助|幫助|滿足|這|進行|进行)"
)
CHINESE = Language(
    declines=(
        r"(?:^|[,、:;。!]|我|恕|请恕我|但|但是|所以|因此|因而|故|ai|模型|助手)[^。!?,“”\"]{0,18}?(?:无法|不能|不会|没办法|没有办法|没法|无权|不便|不方便|不可以|不被允许|未被允许|未被授权|没有被授权|不应该|不应|不愿意|不愿|不想|难以|不能够|無法|不會|没有资格|没资格|[看听打读]不[到开了见])"
        rf"[^。!?,“”\"]{{0,14}}?{_ZH_DO}",
        r"(?:我|^|,|实在|恐怕)(?:也|真的|确实|实在|暂时|可能)?(?:帮不了|帮不上|做不了|办不到|做不到|恕难从命|爱莫能助)",
        r"(?:我|^|,|必须|只能|不得不|选择)(?:必须|只能|要|需要|不得不|将|会|明确|坚决)?(?:拒绝|谢绝|婉拒)",
        r"(?:超出|不在|超越|超過)了?[^。]{0,6}我?[^。]{0,8}(?:能力|知识|服务|权限|职责|工作|讨论|業務)[^。]{0,6}(?:范围|范畴|之外|範圍)?",
        r"(?:违反|违背|不符合|有违|触犯|违规|涉及违)了?[^。]{0,16}(?:规定|政策|准则|原则|法律法规|指南|规范|价值观|条款|使用|道德|伦理|底线)",
        r"(?:换|聊)[一个点些]{0,2}(?:别的|其他的?|其它的?)?(?:话题|问题)(?:吧|聊|再|。|$|来)",
        r"我(?:还|暂时|目前)?(?:没有|没|尚未|未)学习?(?:过|习)?(?:如何|怎么)?(?:回答|会)",
        r"我(?:\w{0,4})(?:没有|并无|不具备|缺乏|不具有|并不具备|没有办法|并没有|不拥有)[^。,]{0,6}(?:实时|个人|自己的(?:情感|观点|意见|感受|想法)|真实|情感|感情|意识|身体|能力|权限|访问|联网|主观|立场|偏好|私人|观点|渠道|喜好)",
        rf"(?:作为|身为|我(?:只)?是|因为我是)(?:一个|一名|一款|一位|一种|一台|你的|您的|个|基于|纯|由[^,。]{{1,12}}(?:开发|训练|研发)的)*{_ZH_AI}(?!研究|工程|专家|学者|领域|公司|从业|爱好|创业|博士|教授|专业|行业|课|产品经理)[^。]{{0,30}}?(?:没有|不|无|只能|必须遵守|未)",
        r"(?:这|那|该)(?:个|类|种|样的)?(?:问题|请求|内容|话题|要求|操作)?(?:并)?不是我(?:可以|能|应该|能够)|(?:不予(?:显示|回答|讨论|展示)|我?不认为[^。]{0,20}(?:合适|恰当|应该|妥当)|我?(?:不适合|不太适合|不宜|不合适)(?:由我|我来|讨论|回答|我))|(?:我|我们)(?:还是)?(?:聊|谈)点?(?:别的|其他)",
        r"我[^。,]{0,4}[看听打读]不[到开了见](?:图片|图像|链接|文件|视频|网页|附件|照片|音频)",
        r"^(?:抱歉|对不起|不好意思)?,?(?:不行|我不(?:能|会|可以)(?:这么|这样|那样|那么)?做)",
    ),
    idioms=r".{0,10}?(?:拒绝相信|用语言|不得不承认|告诉(?:你|您)(?:我)?(?:有多|多么)|推荐得?更|再等|不能不|难以(?:形容|置信|想象)|表达我的(?:感激|谢意|喜悦)|形容)",
    openers=(
        r"(?:恐怕|不$|非常|很|十分|真的|实在)?(?:抱歉|对不起|不好意思|遗憾|歉意|對不起)|(?:您好|你好|嗨|作为|身为|我(?:理解|明白|知道|是|很|能理解|还|暂时|目前|没有|们)|感谢|谢谢|这|那|该|由于|因为|根据|虽然|尽管|关于|对于|不,|不。|不$|恐怕|不行|嗯|哦|唉|出于|为了|请|如果|目前|暂时|您的|你的|恕|但|涉及|制作|编写|提供|此|鉴于|根據|尊重|抱)"
    ),
    everything=(
        r".*?(?:(?:协助|帮助|帮到|帮)(?:您|你)?(?:完成|处理|实现|做)?(?:这|那|此|该)?[^,。]{0,10}[。!]?$|满足|(?:这个|该|您的|你的|此|这类|这样的)(?:问题|请求|要求)|做(?:这|那)|拒绝|换个?话题|违反|超出|回答|帮不了|配合)"
    ),
    weak=(
        r"我[^。,“”]{0,8}(?:无法|不能|不会|不应|不应该|没有资格|不想|不愿|不便|没法|没办法|不可以|[看听打读]不[到开了见])(?!来|去|参加|睡|等|相信|忍|同意|理解|入睡|找|赶|陪|再|想象|忘|一个人)"
    ),
    support=(
        r"抱歉|对不起|不好意思|遗憾|人工智能|ai|语言模型|虚拟助手|请求|违法|犯罪|危险|伤害|有害|道德|伦理|政策|规定|版权|隐私|误导|欺骗|安全|暴力|仇恨|歧视|威胁|骚扰|未成年|作弊|理解(?:你|您)|别的|专业|律师|医生|武器"
    ),
    although=r"^(?:虽然|尽管|即使|虽说)",
    contrast=r"[,;—](?:但是?|不过|然而|可是|只是)|^(?:但是?|不过|然而|可是|一般来说|通常)",
    closing=(
        r"(?:我(?:可以|能|会|很|愿意|建议|的|们|将)|如果(?:您|你)|请|建议|欢迎|可以(?:把|将|尝试|告诉|问|咨询|向)|您可以|你可以|换|还有|其他|其它|违法|犯法|法律|危险|伤害|有害|安全|道德|伦理|暴力|隐私|尊重|专业|医生|律师|求助|帮助|联系|热线|歧视|规定|政策|谢谢|感谢|希望|需要|抱歉|不道德|犯罪|后果|官方)"
    ),
)

LANGUAGES = (ENGLISH, GERMAN, SPANISH, FRENCH, CHINESE)
