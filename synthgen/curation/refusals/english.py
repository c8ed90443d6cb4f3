"""The phrases with which assistants decline in English. `synthgen.curation.refusals.language` describes the fields."""

from __future__ import annotations

from synthgen.curation.refusals.language import Language

_I = r"\bi(?:,? (?:\w+ly|just|also|do|must|still|too|and|am afraid,? (?:that )?i|cannot and))*,? "
_UNABLE = (
    r"(?:(?:cannot|could not|will not|would not|should not|must not|may not)(?: \w+ly| even| just| and will not| be "
    r"able to| in good conscience)*|am (?:\w+ly )?(?:unable to|incapable of|prohibited from|not (?:\w+ly )?(?:able|"
    "going|allowed|permitted|authorized|authorised|willing|programmed|designed|equipped|trained|built|intended|here|"
    "qualified|in a position|at liberty|supposed|capable of|comfortable(?: with)?))(?: to)?|(?:decline|refuse|have "
    "chosen not|would (?:rather|prefer|choose) not|prefer not|choose not)(?: to)?|do not (?:feel comfortable|feel "
    r"right|want to|wish to|think i (?:should|can)|have the (?:\w+ )?(?:ability|capability|capacity|means|authority|"
    r"tools) to|(?:\w+ )?know how to)|lack the (?:ability|capability|capacity) to)"
)
_DO = (
    r"(?:be (?:able to )?(?:help|assist|of (?:help|assistance))|help(?:ing)?\b|assist|compl(?:y|ying)|fulfil|oblige|"
    r"accommodat|facilitat|endors|speculat|diagnos|generat|disclos|provid(?:e|ing)\b(?! for)|produc|engag(?:e|ing) "
    "(?:in|with)|participat(?:e|ing) in|take part|promot(?:e|ing)|go along|carry out|proceed|condone|(?:do|doing|say|"
    r"saying) (?:that|this|it|so)\b|(?:answer|respond|reply|comment|speak|advise)(?:ing)?(?: to| on| you| any| your| "
    "this| that| the question| these| such| questions|[.,!]|$)|(?:giv|offer|shar|tell|show|teach|send|mak|creat|writ|"
    "compos|draft|discuss|recommend|predict|verify|confirm|reveal|describ|explain|access|open|view|see|watch|read|"
    "play|listen to|translat|summari[sz]|support|encourag|continu|complet|execut|perform|simulat|role-?play|design|"
    "develop|cod|identif|express|form|brows|search|look up|call|order|book|process|suggest|rank|rate|judge|pretend|"
    r"act|impersonat|display|draw|interact|order|purchas|schedul|remind|hav|hold)(?:e|ing|ying|y)?\b (?:you\b(?! up)|"
    r"this\b|that\b|these\b|those\b|such\b|any|your\b|about\b|how\b|personal|specific|detailed|medical|legal|"
    "financial|real|harmful|explicit|external|live|current|images?|links?|files?|videos?|audio|emails?|phone|web|"
    r"websites?|urls?|pictures?|photos?|the (?:\w+ ){0,2}(?:internet|web|link|file|image|video|page|website|url|"
    "attachment|document|request|content|story|essay|text|article|answer|question|conversation|task|password|code|"
    r"lyrics|picture|photo|site|future|news|weather)\b|an? (?:\w+[ -]){0,4}(?:story|essay|poem|joke|article|code|"
    "opinion|script|letter|email|review|message|scene|speech|song|plan|list|guide|tutorial|program|malware|virus|"
    "exploit|password|diagnosis|prescription|prediction|preference|post|text|paper|report|summary|translation|link|"
    r"image|file|phone call|reservation|person|answer|response|figure|price)\b|(?:\w+[ -]){0,4}(?:content|"
    "instructions|information|material|advice|software|malware|feelings|emotions|opinions|guidance|data|details|"
    "stories|jokes|images|violence|links|recommendations|reviews|preferences|purposes|poems|conversations|topics|"
    r"requests|activities|steps|lyrics|messages|code)\b|in (?:real|that|this)|on behalf|as (?:if|a|an)\b))"
)
_AI = (
    r"(?:(?:an?|your|just an?|only an?|merely an?|simply an?) (?:\w+[ -]){0,4}?(?:ai|artificial intelligence|"
    r"language "
    "model|llm|chatbot|virtual assistant|computer program)(?:[ -](?:powered|based|driven))?(?: (?:language |text )"
    "?(?:model|assistant|system|program|chatbot|entity|tool|bot|being))?(?: (?:developed|trained|created|made|built|"
    r"designed|programmed|from|by)\b[^,.]{0,50})?)(?=,| and| so| i\b|$|[.;])"
)
_I_NOT = (
    r"\b(?:i|and) (?:\w+ly |still |also |just )?(?:do not|cannot|am not|am unable|have no\b|lack|will not|must "
    "decline|should not|am prohibited|am only able|could not|would not|may not)"
)

ENGLISH = Language(
    starts=(
        r"i\b|we\b|sorry|my\b|please|sincere|apolog|unfortunate|regret|sad|thank|while|although|though|even|"
        r"as (?:an?|your|much|i)\b|since|because|given|due|(?:this|that|it)(?:['’‘ʼ`´＇]| (?:is|would|goes|falls|"
        r"violates|looks|sounds|"
        r"also|request|question|topic|task|kind|type|content|conflicts|lies|exceeds))|your|what you|such|"
        r"the (?:request|question|topic|"
        r"content|story|scenario)|no\b|nope|never|absolutely|certainly|definitely|hello|hi\b|hey|well|oh|ok|hm|"
        r"um|ah\b|to be|"
        r"in (?:order|this case|good)|with (?:all|due|respect)|providing|helping|creating|generating|writing|"
        r"sharing|discussing|"
        r"making|giving|assisting|engaging|however|but|therefore|for (?:\w+ )?(?:privacy|legal|safety|ethical|"
        r"security|reasons)|"
        r"if you|being|at this|currently|honestly|look\b|listen|great|good|interesting|without|despite|out of|"
        r"under|there|harass|"
        r"using|can(?:not|['’‘ʼ`´＇]t| not)|unable|not able|will not|won['’‘ʼ`´＇]|let['’‘ʼ`´＇]s|let us"
    ),
    speaks=(
        " i ",
        " i'",
        " my ",
        " me",
        " our ",
        "polic",
        "would be ",
        "helping",
        "assisting",
        "unable to",
        "can't ",
        "cannot ",
        "will not be",
        "won't be",
    ),
    denies=(
        "not",
        "n't",
        "cannot",
        "cant ",
        "unable",
        "incapable",
        "declin",
        "refus",
        "prohibit",
        "rather",
        "prefer",
        "lack",
        "only",
        "abstain",
        "refrain",
        "avoid",
        " no ",
        "pass on",
        "opt out",
        "outside",
        "beyond",
        "against",
        "prevent",
        "forbid",
        "restrict",
        "stop",
        "inappropriate",
        "unethical",
        "irresponsible",
        "impossible",
        "wrong",
        "violat",
        "something else",
        "change the",
        "move on",
    ),
    declines=(
        (_I + _UNABLE + " " + _DO),
        (r"\b(?:as|being|since i am|because i am|i am|am) " + _AI + "[^.]{0,120}?" + _I_NOT),
        (
            r"\bi do not (?:have|possess|hold)(?: the| any| an?)? (?:(?:ability|capability|capacity) to|(?:\w+ )"
            "?(?:personal|subjective|emotion|feeling|opinion|belief|preference|real-?time|consciousness|internet|"
            r"browsing|physical)|access to (?:\w+[ -]){0,4}(?:real-?time|internet|web|live|current|external|personal|"
            r"your|data|information|up-to-date|files?|news|links?|private|specific|records|databases?)|(?:\w+ )"
            "?(?:information|data) (?:about|on|regarding) (?:private|specific|individual|any|that person|this person)"
            ")"
        ),
        (
            r"\bi do not (?:\w+ly )?(?:engage in|create|write|produce|provide|generate|participate in|support|share|"
            r"assist|offer|condone|discuss|help with) (?:\w+[ -]){0,4}(?:content|material|requests|that|this|"
            "activities|topics|instructions|information|advice|opinions|violence|stories|of any kind|images|"
            "discrimination)"
        ),
        r"\b(?:is|are) not (?:something|a (?:request|task|topic|subject))(?: that| which)? i\b",
        (
            "(?:that|this|it|which)(?:, however,|, unfortunately,)? is (?:simply |really |unfortunately |also )"
            "?(?:not |just not )?(?:something|a (?:request|task|topic|question|subject)|a line|one)(?: that| which)? "
            r"i (?:am|can\b|cannot|will|would|do not|should|could|have to)"
        ),
        (
            r"\bis (?:not )?(?:something|a (?:request|task|topic))(?: that| which)? i (?:am (?:not|un)|cannot|will "
            "not|do not|have to decline)"
        ),
        (
            r"(?:^|\b(?:this|that|it|your|the|such|what you are asking(?: for)?)\b) ?(?:\w+ ){0,4}(?:goes|go|"
            r"violates?|is|are|conflicts?|falls?|would (?:violate|go|be)|exceeds?|contravenes?|breaches|"
            r"lies) ?(?:\w+ "
            "){0,2}(?:against|outside|beyond|with|within|in line with|consistent with|of)?(?: of)? ?(?:my|our|"
            r"openai's?|the (?:content|usage|safety|community))(?: \w+){0,3} ?(?:polic|guidelines|scope|capabilit|"
            "programming|terms|principles|expertise|rules|values|purpose|abilities|limits|area)"
        ),
        (
            r"\b(?:it|that|this) (?:is|would be|is also|would) (?:\w+ly )?(?:not (?:be )?(?:\w+ly )?(?:appropriate|"
            "ethical|possible|right|okay|acceptable|safe|responsible)|inappropriate|unethical|impossible|"
            r"irresponsible|wrong|against)(?: or \w+)? (?:for me|of me|my)\b"
        ),
        (
            r"\bit would be (?:\w+ly )?(?:inappropriate|unethical|irresponsible|wrong|illegal|dangerous)(?: and \w+| "
            r"or \w+)? (?:for me )?to (?:provide|help|assist|write|create|share|give|generate|speculate|answer|"
            "discuss)"
        ),
        (
            r"\bmy (?:\w+ ){0,3}(?:guidelines|programming|training|policies|policy|principles|design|instructions|"
            "creators|rules|developers|purpose)[^.]{0,60}?(?:prevents?|prohibits?|not (?:allow|permit|let)|forbids?|"
            "restricts?|stops?|prohibited)"
        ),
        (
            r"\bi (?:must|have to|need to|will have to|am going to have to|will|would like to|am obliged to|"
            r"should|do)"
            r"?(?: \w+ly)? ?(?:decline|refuse|pass on this|abstain|opt out)(?:\b(?! in\b)|$)"
        ),
        (
            r"\bi (?:would (?:rather|prefer|choose)|prefer|choose) (?:not|to not)\b|(?:outside|"
            r"beyond)(?: of)? what i "
            r"(?:can|am|do)\b"
        ),
        (
            r"\bi (?:must|have to|need to|am (?:programmed|designed|trained|required|instructed|obligated) (?:to )?)"
            r"(?: \w+ly)? ?(?:avoid|refrain|not to|abstain|reject|turn down)"
        ),
        (
            r"\bi have been (?:programmed|designed|instructed|trained|told|asked) (?:not to|to (?:avoid|refuse|"
            "decline))"
        ),
        (
            r"\bi am not comfortable\b|\bi do not feel (?:comfortable|right|good|able)\b|\bi (?:will not|"
            r"am not going "
            "to) be (?:writing|helping|providing|creating|answering|sharing|continuing|doing|assisting|giving|"
            r"discussing)\b|\bi do not think (?:i should|it is appropriate|it would be)|\bi am not the (?:right|"
            r"best) "
            r"(?:tool|assistant|source|person|one)\b"
        ),
        (
            "^(?:sorry,? (?:but )?|no, |unfortunately,? )?(?:cannot|unable to|not able to|will not) (?:help|assist|"
            "comply|answer|fulfil|do that|provide|process|be able to)"
        ),
        r"\b(?:helping|assisting)\b[^.]{0,60}(?:not possible|off the table|not an option)",
        (
            r"\b(?:let us|could we|can we|shall we) (?:talk about something else|change the (?:topic|subject)|"
            r"move on "
            "to)"
        ),
    ),
    idioms=(
        r".{0,25}?\b(?:help (?:but|it\b|myself|feeling|thinking|noticing|wondering|smiling|laughing|loving|being|"
        r"falling|admiring)|(?:tell|show|express) you (?:how (?:\w+ly )?(?:much|happy|glad|excited|grateful|proud|"
        "sorry|many|often|good|great|relieved|thrilled))|(?:give|recommend|support|endorse|describe) (?:this|it|that|"
        r"these|them|you)[^.]{0,30} (?:enough|more)\b|(?:cannot|could not|will not|would not) say (?:that|i|it|"
        r"enough|"
        r"with)\b|(?:refuse|decline) (?:the|your|an?) (?:compliment|invitation|offer|honou?r|drink|gift)|(?:refuse|"
        r"decline) to (?:believe|accept|give up|be\b)|see (?:this|that|it) (?:going|working|ending|happening)|help "
        r"you (?:if|unless|until)\b)"
    ),
    openers=(
        r"(?:i am (?:\w+ |deeply )?sorry|i (?:\w+ly |do |can |completely )?(?:understand|appreciate|know|see\b|hear|"
        r"get\b|realize|recognize|apologi[sz]e|regret|want|would|thank|care|do not|cannot|will|must|strongly|need|"
        "believe|think|feel|hope|wish|am (?:an?|just|only|afraid|really|here|glad|happy|committed|programmed|"
        "designed|flattered|aware)|am,|have to)|sorry|(?:my |please accept my |sincere )?apologies|apologi[sz]e|"
        r"unfortunately|regrett?ably|regretfully|sadly|thanks?\b|while|although|though|even though|as\b|since|"
        r"because|"
        r"given|due to|that\b|this\b|it\b|your|what you|such|the (?:request|question|topic|content|story|scenario)|"
        r"no\b|nope|never\b|absolutely|certainly|definitely|hello|hi\b|hey|well|oh|okay|ok\b|hmm|um|ah|to be|in "
        "(?:order|this case|good)|with (?:all )?(?:due )?respect|providing|helping|creating|writing|generating|"
        r"sharing|discussing|making|giving|assisting|engaging|however|but\b|and\b|so\b|therefore|please|for|my\b|if "
        r"you|being|at this time|currently|honestly|look\b|listen|great question|good question|interesting|without|"
        "despite|out of|under|there is no|harass|using|it sounds)"
    ),
    everything=(
        r".*?(?:comply|compliance|fulfil|(?:help|assist)\w*(?: you)?(?: with)?(?: doing)?(?: any of)? ?(?:that|this|"
        "it|such|your request|the request|those|these|this request|that request)?(?: (?:request|one|kind of|type of|"
        "sort of|particular)[^,]*)?[.!;]*$|(?:do|doing|write|writing|answer|discuss|create|generate|say) (?:that|"
        r"this|it|so)\b|answer (?:your|the|any)|(?:decline|refuse)\b)"
    ),
    weak=(
        _I
        + _UNABLE
        + (
            r" (?!(?:come|attend|make it|join|go\b|sleep|wait|stay|eat|believe|agree|imagine|stop|stand\b|find|think|"
            r"decide|afford|be\b|meet|stress|emphasi[sz]e|overstate|thank|complain|promise|get\b|help|tell a lie|"
            r"understand|take\b|keep|live\b|forget|sugarcoat|feel|love|speak for|lie\b|let\b|resist|explain why|"
            r"leave|"
            r"give up|remember (?:when|where|the last)|pretend|say\b|see\b|recommend|count)\b)\w+|"
            r"\bi (?:can|am able to|"
            r"am only able to|am here to) only\b|\bi (?:can|am) only (?:able to )?(?:help|answer|"
            r"assist|provide|respond|"
            "discuss)"
        )
    ),
    support=(
        r"\b(?:sorry|apolog\w*|unfortunately|regrett?\w*|afraid|thanks?|appreciate|understand|(?:as|am) an? (?:\w+ )"
        r"{0,3}(?:ai|language model|virtual assistant|chatbot|computer program)(?=,| and| so| i\b)|because|since|not "
        r"(?:okay|ok|right|fair)|wrong|request|illegal|unlawful|harm\w*|danger\w*|\w*ethic\w*|polic(?:y|ies)|"
        r"guidelines?|copyright\w*|privacy|private|mislead|crime|criminal|unsafe|safety|minors?|consent|violen\w*|"
        r"hate\w*|discriminat\w*|dishonest\w*|decei\w*|threat\w*|abus\w*|something else|happy to|professional|"
        r"against "
        r"(?:the|my)|stalk\w*|weapon\w*)\b"
    ),
    although=r"^(?:while|although|though|even though|as much as|despite)\b",
    contrast=(
        r"[,;—–-] ?(?:but|however|though|although|yet|still)\b,? |^(?:however|that said|still|but|nevertheless|"
        r"having "
        r"said|nonetheless|in general|generally|typically)\b,? "
    ),
    closing=(
        r"\b(?:(?:i|we) (?:can|could|would|am|will|do|must|have|encourage|suggest|recommend|strive|aim|urge|hope|"
        "understand|apologi)|i'd|happy to|glad to|feel free|let me know|if you (?:have|need|would|are|want|or|know|"
        "know|paste|share|provide|could|can|like|feel|suspect|think|believe)|is there (?:any|some)|would you like|"
        "how about|what about|how can i|instead|perhaps|please|thank|sorry|illegal|unlawful|crime|criminal|dangerous|"
        r"harm|unethical|violen|unsafe|injur|legal(?:ly)?|law\b|laws|guideline|policy|policies|privacy|respect|"
        "sensitive|inappropriate|disrespect|professional|consult|seek|contact|reach out|hotline|prioriti|my purpose|"
        r"my (?:goal|role|aim|training|knowledge)|ethic|moral|rights|consent|safe(?:ty|r)?\b|dishonest|"
        r"misinformation|"
        "stereotyp|discriminat|hate|offensive|trust|wrong|risk|serious|consequences|alternatively|local|qualified|as "
        "an ai|official|website)"
    ),
)
