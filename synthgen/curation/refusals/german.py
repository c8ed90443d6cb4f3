"""The phrases with which assistants decline in German. `synthgen.curation.refusals.language` describes the fields."""

from __future__ import annotations

from synthgen.curation.refusals.language import Language

_DE_DO = (
    "(?:helfen|weiterhelfen|weiter helfen|behilflich|beantworten|nachkommen|entsprechen|erfüllen|unterstützen|"
    "bereitstellen|zur verfügung|erstellen|generieren|verfassen|schreiben|geben|nennen|teilen|tun|machen|ausführen|"
    "durchführen|stellen|anbieten|beraten|äußern|eingehen|zugreifen|abrufen|öffnen|programmieren|produzieren|liefern|"
    "diskutieren|kommentieren|bearbeiten|übernehmen|empfinden|fühlen|sagen|ausgeben|herausgeben|weitergeben|"
    "preisgeben|besprechen|behandeln|spekulieren|antworten|vorhersagen|einsehen|ansehen|lesen|zusammenfassen|"
    "übersetzen|mitteilen|bewerten|beurteilen|fördern|befürworten|verraten|erklären|beitragen|mitwirken|beteiligen|"
    "wiedergeben|erteilen|erlauben|ausdenken|empfehlen|verbreiten|verwenden|anzeigen|buchen|bestellen|anrufen|"
    "fortsetzen|fortfahren|dienen|haben)"
)

GERMAN = Language(
    starts=(
        r"es\b|tut|das|entschuldig|verzeih|sorry|leider|bedau|ich|als\b|vielen|danke|nein|da|weil|obwohl|"
        r"auch wenn|bei|dies|hallo|guten|zu|aber|so|jedoch|allerdings|ihre|deine|die\b|der\b|oh|hm|auf|aus|"
        r"wegen|mir|wenn|zwar|gern|um\b|lass|solche|nicht"
    ),
    speaks=("ich", "mir", "mein", "unser", " uns ", "anfrage", "richtlinie", "nutzungsbed", " es w", " es ist"),
    denies=(
        "nicht",
        "kein",
        "weder",
        "nur ",
        "unmöglich",
        "ablehn",
        "lehne",
        "weiger",
        "absehen",
        "verzicht",
        "passen",
        "untersagt",
        "zurückweisen",
        "außerhalb",
        "jenseits",
        "übersteigt",
        "verst",
        "widersp",
        "verletz",
        "einklang",
        " uns ",
        "unethisch",
        "verantwort",
        "unangemessen",
    ),
    declines=(
        (
            (
                r"(?:\bich (?:kann|darf|möchte|werde|will|könnte)|\b(?:kann|darf|möchte|werde|will|könnte) ich|"
                r"\b(?:kann|darf) und (?:darf|werde|will|möchte))\b[^.!?]{0,90}?\b(?:nicht|kein\w*|weder|nichts)"
                r"\b[^.!?]{0,110}?\b(?:\w+zu)?"
            )
            + _DE_DO
            + r"\b"
        ),
        (r"\bich (?:kann|darf|werde)\b[^.!?]{0,60}\b(?:unmöglich|keinesfalls)\b[^.!?]{0,60}\b" + _DE_DO + r"\b"),
        r"\b(?:helfe|unterstütze|beantworte|erstelle|verfasse|mache|tue|gebe) ich (?:\w+ ){0,5}(?:nicht|kein)",
        (
            r"\bich (?:helfe|unterstütze|erstelle|beantworte|verfasse|generiere|gebe|schreibe|teile|biete) (?:\w+ )"
            r"{0,4}(?:nicht(?! (?:gern|nur|mehr|viel))|kein\w*)(?! (?:\w+ )?ruhe)"
        ),
        (
            r"(?:\bich bin|\bbin ich)\b[^.]{0,40}\bnicht (?:\w+ )?(?:in der lage|befugt|berechtigt|imstande|"
            r"autorisiert|bereit|fähig|(?:darauf |dafür |dazu )?(?:programmiert|gemacht|ausgelegt|da\b|trainiert|"
            "entwickelt))(?! gewesen)"
        ),
        (
            r"\b(?:es ist mir|mir ist es|ist es mir|ist mir)\b[^.]{0,40}?(?:nicht (?:möglich|erlaubt|gestattet)|"
            "unmöglich|untersagt)"
        ),
        (
            r"\b(?:ich (?:muss|möchte|werde|will)|muss ich|möchte ich)\b[^.]{0,80}?(?:ablehnen|verweigern|absehen|"
            r"zurückweisen|verzichten|passen)\b"
        ),
        (
            r"\bich (?:kann|werde|möchte)\b[^.]{0,40}\b(?:rollenspiel|gespräch|unterhaltung|diskussion)"
            r"\b[^.]{0,30}\bnicht\b|\b(?:bin ich|ich bin) nicht (?:der|die|das) richtige"
        ),
        r"\bich (?:lehne|verweigere|weigere)\b[^.]{0,80}",
        (
            "(?:verstößt|verstoßen|widerspricht|widersprechen|nicht vereinbar|unvereinbar|nicht im einklang|verletzt|"
            r"nicht mit)[^.]{0,50}?(?:\w*richtlinie|(?:meine|unsere)\w* (?:\w+ )?(?:grundsätze|regeln|prinzipien|"
            "programmierung|werte)|nutzungsbedingungen)"
        ),
        (
            r"\b(?:anfrage|bitte|frage|wunsch)\b[^.]{0,20}\bkann (?:ich |hier |so )?(?:leider )?nicht\b|\bich weiß "
            "(?:leider )?nicht,? wie ich (?:ihnen|dir)[^.]{0,40}helfen"
        ),
        (
            r"\bals (?:(?:ein|eine|einer|reines|reine|virtueller|virtuelle|textbasierte\w?|großes|künstliche\w?|"
            r"digitaler?|digitale|ihr|dein|bloße\w?) ){0,3}(?:ki|ai|intelligenz|sprachmodell|(?:ki|ai)-\w*(?:modell|"
            r"assistent\w*|system|sprachmodell|programm|chatbot)|chatbot|computerprogramm|assistent|assistentin)"
            r"\b(?!-)[^.]{0,60}?\b(?:habe|kann|bin|besitze|verfüge|darf|empfinde|werde|fühle|möchte|nehme|erlebe|"
            r"äußere)\b[^.]{0,80}?\b(?:kein\w*|nicht|weder|nie|nur)\b"
        ),
        (
            r"\b(?:ich bin|da ich) (?:nur |lediglich |bloß )?(?:eine? )?(?:ki|künstliche intelligenz|sprachmodell|"
            r"ki-\w+|computerprogramm)\b[^.]{0,100}?\b(?:kein\w*|nicht|weder)\b"
        ),
        (
            r"(?:\bich habe|\bhabe ich|\bich besitze)\b[^.]{0,30}?\bkein\w* (?:\w+ )?(?:zugriff|zugang|echtzeit\w*|"
            r"persönliche\w*|eigene[nr]? (?:meinung|gefühl)|gefühle|meinung|bewusstsein|möglichkeit|informationen "
            "über|befugnis|aktuellen (?:daten|informationen))"
        ),
        r"\bich verfüge[^.]{0,30}?(?:nicht über|über kein)",
        r"\bfühle (?:ich )?mich[^.]{0,40}nicht wohl",
        (
            "(?:liegt|fällt|ist)[^.]{0,20}(?:außerhalb|jenseits) mein|übersteigt (?:leider )?mein|nicht in meinen? "
            "(?:zuständig|bereich|möglichkeiten)"
        ),
        (
            r"\bes (?:wäre|ist) (?:\w+ )?(?:nicht (?:angemessen|ethisch|richtig|vertretbar|verantwortbar|in ordnung)|"
            "unangemessen|unethisch|verantwortungslos|unverantwortlich)[^.]{0,15}(?:, (?:dass ich|wenn ich|hier)|für "
            "mich|von mir|, [^.]{0,50}zu (?:geben|schreiben|erstellen|liefern|spekulieren|helfen))"
        ),
        r"\b(?:lass|lassen sie) uns (?:lieber |bitte )?(?:über etwas anderes|das thema wechseln)",
        r"\bist (?:leider )?nichts,? (?:wobei|womit|bei dem|was) ich\b",
    ),
    idioms=(
        ".{0,40}?(?:nicht (?:oft |nachdrücklich |eindringlich )?genug|(?:gar|kaum) nicht? sagen, wie|nicht anders|"
        "nicht (?:sagen|behaupten), dass|weigere mich,? zu glauben|nicht (?:nur|umhin)|nicht sagen, wie (?:sehr|froh|"
        "glücklich|dankbar)|keinen hehl|nicht mehr länger)"
    ),
    openers=(
        r"(?:es tut mir|tut mir|das tut mir|entschuldig|verzeih|sorry|leider|bedauer|ich bedau|ich entschuldige|als\b|"
        "ich (?:verstehe|weiß|schätze|bin|danke|kann (?:gut )?(?:verstehen|nachvollziehen))|vielen dank|danke|nein|"
        r"da\b|weil|obwohl|auch wenn|bei\b|dies\w*\b|das\b|dabei|hallo|guten|zu\b|aber\b|so\b|jedoch|allerdings|ihre|"
        r"deine|die\b|der\b|oh|hm|aus\b|aufgrund|es ist|es wäre|wegen|mir\b|wenn|zwar|gern|um\b)"
    ),
    everything=(
        r".*?(?:\b(?:weiter)?helfen\.?$|behilflich sein|nachkommen|(?:diese|ihre|deine)\w* (?:bitte|anfrage|frage|"
        r"wunsch|anliegen)|das kann ich|\bdas\b[^.]{0,20}(?:tun|beantworten|machen)|ablehnen|helfe ich|(?:anfrage|"
        "bitte|frage|wunsch) (?:nicht|leider)|dabei nicht|nicht dabei)"
    ),
    weak=(
        r"(?:\bich (?:kann|darf|möchte|werde|will|könnte)|\b(?:kann|darf|möchte|werde|will|könnte) ich|\b(?:und|aber|"
        r"daher|deshalb) (?:kann|darf|werde|möchte))\b(?!.*\b(?:kommen|besuchen|schlafen|warten|glauben|verstehen|"
        "entscheiden|erinnern|dabei sein|teilnehmen|finden|erwarten|leiden|vorstellen|ausstehen|versprechen|gehen|"
        r"bleiben|fahren|treffen|essen)\b)[^.!?]{0,90}?\b(?:nicht|kein\w*|weder|nichts)\b|\b(?!habe|hatte|wäre)\w+e "
        r"ich\b[^.!?:,]{0,30}?\b(?:nicht|keine?)\b|\bkann ich nur\b[^.]{0,60}\b(?:beantworten|helfen|sprechen)|\bich "
        r"(?:\w+ ){0,2}(?:\w+e) (?:\w+ ){0,2}keine?\b"
    ),
    support=(
        r"\b(?:leid|entschuldig\w*|bedau\w*|leider|verzeih\w*|ki|sprachmodell|virtueller assistent|virtuelle "
        r"assistentin|denn|weil|da|nicht in ordnung|falsch|streitfragen|politisch\w*|anfrage|illegal|strafbar|"
        r"straftat|verboten|gefährlich\w*|schad\w*|unethisch|ethisch\w*|richtlinie\w*|urheber\w*|datenschutz|"
        r"privat\w*|hilfreich und|sicherheit|gewalt\w*|hass\w*|diskriminier\w*|beleidig\w*|drohung\w*|täusch\w*|"
        r"verletz\w*|etwas anderes|verstehe|betrug|hacken|waffe\w*)\b"
    ),
    although=r"^(?:obwohl|auch wenn|zwar|wenngleich|wenn auch)\b",
    contrast=(
        r"[,;–—] ?(?:aber|jedoch|doch|allerdings|dafür)\b |^(?:aber|jedoch|allerdings|trotzdem|dennoch|grundsätzlich|"
        r"allgemein|im allgemeinen)\b "
    ),
    closing=(
        r"\b(?:bitte|gern\w*|gibt es|kann ich (?:ihnen|dir)|ich (?:kann|könnte|bin|würde|empfehle|rate|helfe|verstehe|"
        r"hoffe|stehe)|wenn (?:sie|du)|falls|wende\w*|stattdessen|vielleicht|danke|tut mir leid|illegal|verboten|"
        r"strafbar|gefährlich\w*|schad\w*|unethisch|gewalt|gesetz\w*|richtlinie\w*|privatsphäre|respekt\w*|fachperson|"
        r"fachmann|anwalt|anwält\w*|arzt|ärzt\w*|hilfe|notruf|sicher\w*|professionell\w*|beleidig\w*|diskriminier\w*|"
        r"recht\w*|verletz\w*|möchten sie|möchtest du|wie wäre|lassen sie|lass uns|offiziell\w*|kopieren)\b"
    ),
    free_order=True,
)
