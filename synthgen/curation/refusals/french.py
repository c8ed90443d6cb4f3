"""The phrases with which assistants decline in French. `synthgen.curation.refusals.language` describes the fields."""

from __future__ import annotations

from synthgen.curation.refusals.language import Language

_FR_DO = (
    "(?:aider|assister|répondre|fournir|donner(?! tort)|satisfaire|accéder|générer|créer|écrire|rédiger|produire|"
    r"partager|faire (?:cela|ça|ce\b|une telle|de telles|de prédiction|ceci)|discuter|commenter|participer|"
    r"poursuivre|"
    "continuer cette|compléter|réaliser|exécuter|divulguer|révéler|promouvoir|soutenir|encourager|recommander|ouvrir|"
    "consulter|naviguer|voir (?:les|l'|la|le|votre|ton|des)|lire (?:les|l'|la|le|votre|ton|des|ce)|diagnostiquer|"
    "prédire|prévoir|ressentir|éprouver|dire (?:quel|ce|si|comment|où|qui)|parler de ce|communiquer|proposer|offrir|"
    "traiter|donner suite|honorer|accepter (?:cette|votre|ta)|exprimer|émettre|tomber amoureu|traduire|résumer|"
    "apporter (?:d'aide|mon|de)|avoir (?:d'|de |une)|porter|contribuer|collaborer|inventer|vérifier|envoyer|réserver|"
    "poser|prendre (?:parti|position)|me prononcer|conseiller|expliquer|décrire|imaginer|formuler|juger|spéculer|"
    "prescrire|interpréter|effectuer|simuler|jouer (?:ce|le rôle|un rôle)|montrer|transmettre|rechercher|chanter)"
)

FRENCH = Language(
    starts=(
        r"je\b|j['’‘ʼ`´＇]|désol|navr|malheureuse|hélas|pardon|excus|toutes mes|mes|veuillez|en\b|merci|voilà|"
        r"non|bien que|même|étant|puisque|comme|car|cet|cel|ce\b|c['’‘ʼ`´＇]|votre|ta\b|ton\b|bonjour|salut|"
        r"cependant|toutefois|mais|donc|il\b|pour|à l|actuelle|afin|sauf|oh|hum|fournir|aider|créer|rédiger|"
        r"avec|par\b|d['’‘ʼ`´＇]|selon|bonne|changeons|parlons"
    ),
    speaks=(" je ", " j'", " mes ", " mon ", " ma ", " nos ", " m'", " il ", " ce n'", "changeons", "parlons"),
    denies=(
        "ne ",
        "n'",
        "pas ",
        "refus",
        "déclin",
        "abst",
        "préfère",
        "dépasse",
        "excède",
        "encontre",
        "enfrei",
        "viole",
        "contrevient",
        "sort ",
        "incompatible",
        "contraire",
        "en dehors",
        "au-delà",
        "hors ",
        "imposs",
        "interdi",
        "inappropri",
        "irrespons",
        "changeons",
        "parlons",
        "empêch",
    ),
    declines=(
        (
            (
                r"\bje (?:ne|n')\W?(?:\w+ ){0,2}?(?:peux|pourrai|pourrais|puis|saurais|vais|dois|souhaite|veux|"
                r"désire|"
                r"compte)\b(?: (?:malheureusement|donc|pas|vraiment|simplement|hélas|toutefois|cependant|"
                r"en aucun cas|"
                r"ni|plus|et ne veux|et ne vais))*[^.]{0,35}?\b"
            )
            + _FR_DO
        ),
        (
            r"\b(?:et|mais|donc) (?:je )?ne (?:peux|dois|vais|souhaite)(?: donc| pas| malheureusement)*[^.]{0,25}?\b"
            + _FR_DO
        ),
        (
            r"\bje ne suis(?: malheureusement| donc)? (?:pas|ni)(?: \w+ment)? (?:en mesure|capable|autorisée?|"
            "habilitée?|à l'aise|programmée?|conçue?|disposée?|en capacité|apte|qualifiée?|censée?|là pour)"
        ),
        (
            r"\bje ne (?:(?:vous|te|t'|le|la|l'|y) ?){0,2}(?:aiderai|ferai|fournirai|écrirai|répondrai|donnerai|"
            r"participerai|créerai|partagerai|rédigerai|générerai) pas\b"
        ),
        (
            r"\bil (?:m'est|me semble|m'est malheureusement) (?:donc |malheureusement )?(?:impossible|interdit)|"
            r"m'est "
            r"pas (?:\w+ )?(?:possible|permis|autorisé)"
        ),
        (
            r"\bje (?:refuse|décline|m'abstiens|m'abstiendrai)\b|\bje (?:dois|me dois|préfère|vais devoir|me vois|"
            r"suis|me permets de|souhaite)\b[^.]{0,50}?\b(?:décliner|refuser|m'abstenir)"
        ),
        (
            r"\bje préfère(?:rais)? ne pas\b|\bje ne suis pas faite? pour\b|\b(?:dépasse|excède) (?:mes|mon)\b|\bne "
            r"pas pouvoir\b|\bje ne (?:pense|crois|trouve) pas (?:qu'il (?:soit|serait)|que ce soit|devoir|"
            r"pouvoir)\b|"
            r"\bil ne m'appartient pas\b"
        ),
        (
            r"\bje préfère(?:rais)? ne pas\b[^.]{0,20}(?:répondre|écrire|discuter|aborder|continuer|faire|parler|me "
            "prononcer|donner)"
        ),
        r"\bce n'est pas (?:quelque chose|une (?:tâche|demande|question)|un sujet)[^.]{0,25}\b(?:je|j')",
        (
            r"(?:\b(?:va|vont|irait|est|serait|sont) (?:\w+ment )?(?:à l'encontre|contraires?|incompatibles?)|"
            r"\b(?:enfreint|viole|contrevient|ne respecte pas|ne correspond pas|dépasse|"
            r"sort))\b[^.]{0,25}?(?:mes|nos|"
            "mon|les|la|ma|l')[^.]{0,25}(?:règles?|politiques?|principes?|directives?|conditions|charte|éthique|"
            "cadre|capacités|compétences|programmation|consignes|valeurs)"
        ),
        (
            r"\b(?:en dehors|au-delà|hors) de (?:mes|mon|ma) (?:compétences|capacités|domaine|champ|portée)|\bmes? "
            "(?:règles|directives|principes|programmation|consignes|politiques)[^.]{0,40}(?:interdi|empêch|ne me "
            "permet)"
        ),
        (
            r"\bje n'ai (?:malheureusement |donc )?(?:pas|ni|aucune?) ?(?:accès|(?:d'|de |la |le )?(?:opinions?|"
            "sentiments?|émotions?|préférences?|capacité|possibilité|avis|corps|conscience|expériences?|"
            "informations? (?:sur|en temps|personnel)|données|vie|croyances?|accès|convictions?))"
        ),
        r"\bje n'ai (?:malheureusement |donc )?(?:pas|aucun) (?:le )?droit de (?:vous |t'|te |l')?" + _FR_DO,
        r"\bje ne (?:dispose|possède|ressens|éprouve|bénéficie) (?:\w+ment )?pas\b",
        (
            r"\b(?:en tant (?:que |qu')|étant |je (?:ne )?suis (?:qu')?)(?:(?:une?|simple|grand|assistant|assistante|"
            "virtuel|virtuelle|programme|d'|l'|système|outil|qu'|votre|basé sur l'|basée sur l') ?){0,4}(?:ia|"
            r"intelligence artificielle|modèle (?:de|d'|linguistique)\b[^,.]{0,25}|chatbot|programme informatique|"
            r"agent conversationnel|assistante? (?:virtuel|numérique|ia|vocal)\w*)\b[^.]{0,110}?(?:\bne\b|\bn'|"
            r"\bpas\b)"
        ),
        (
            r"\bil (?:n'est pas|ne serait pas) (?:approprié|éthique|convenable|correct|acceptable|responsable)"
            r"[^.]{0,20}(?:pour moi|que je|de ma part|de (?:donner|fournir|rédiger|spéculer|parler))|\bil serait "
            "(?:inapproprié|irresponsable|contraire)"
        ),
        (
            r"\b(?:changeons|parlons) (?:de sujet|d'autre chose)|\bje ne (?:crée|rédige|produis|fournis|génère|"
            "partage|participe|cautionne|soutiens|donne|communique|divulgue) pas (?:à |de |d'|ce |cette |les |des |"
            r"ces )|\bje ne suis pas (?:la bonne personne|le bon)"
        ),
    ),
    idioms=(
        ".{0,20}?(?:peux pas dire que|refuse de (?:croire|penser)|peux que|m'empêcher|saurais trop|saurais assez|"
        "(?:recommander|conseiller)[^.]{0,20} (?:assez|davantage|suffisamment)|dire (?:à quel point|combien)|"
        "attendre)"
    ),
    openers=(
        r"(?:je (?:suis (?:\w+ment |vraiment |sincèrement )?(?:désolé|navré|conscient|un|une|flatté)|m'excuse|"
        r"regrette|comprends|sais|vous (?:remercie|prie)|te remercie|crains|ne\b|n')|désolée?|navrée?|"
        r"malheureusement|"
        r"hélas|pardon|excus|toutes mes|mes excuses|veuillez|en tant|merci|voilà|non\b|bien que|même si|étant|"
        r"puisque|"
        r"comme\b|car\b|cette|cel|ce\b|votre|ta\b|ton\b|bonjour|salut|cependant|toutefois|mais\b|donc\b|il\b|"
        r"pour\b|à "
        r"l'heure|actuellement|afin|sauf|oh|hum|fournir|aider|créer|rédiger|avec tout|par\b|c'est|en raison|d'après|"
        "selon|bonne question|j')"
    ),
    everything=(
        r".*?(?:satisfaire|(?:vous |t'|te )aider(?: (?:avec|à|pour|dans) (?:cela|ça|ce\w*|votre|faire cela)"
        r"\b[^,]{0,40})?[.!]*$|(?:cette|votre|ta) (?:demande|question|requête)|faire (?:cela|ça|ceci)|refuse|"
        r"décliner|"
        "décline|ferai|aiderai|encontre)"
    ),
    weak=(
        r"\b(?:je (?:ne |n')(?:\w+ ){0,2}?(?:peux|puis|pourrai|vais|dois|veux|souhaite)|je (?:ne |n')(?:(?:vous|"
        r"te|le|"
        r"la|les|y|en) )?\w+rai (?:pas|jamais|aucune?)|je (?:ne |n')(?:\w+s (?:pas|qu))(?= |')|"
        r"je ne réponds qu)\b(?: "
        "(?:donc|pas|malheureusement))* ?(?!(?:pas|donc|malheureusement|être|venir|dormir|croire|attendre|trouver|"
        "assister|aller|imaginer|rester|partir|plus|vivre|penser|décider|promettre|oublier|nier|que|manger|savoir|"
        r"connais|sais|suis|me joindre|vous rejoindre|vous voir|voir)\b)'?\w+"
    ),
    support=(
        r"(?:\b(?:désolée?|navrée?|excus\w*|malheureusement|regrette|hélas|pardon|crains|car|parce que|puisque|pas "
        "acceptable|pas bien|intimider|ia|intelligence artificielle|modèle de langage|assistant virtuel|demande|"
        r"illéga\w*|illicite\w*|délit|danger\w*|nuire|nuisible\w*|\w*éthique\w*|politiques?|droits? d'auteur|"
        r"confidentialité|privée?s?|tromp\w*|sécurité|violen\w*|haine|haineu\w*|discrimin\w*|menace\w*|harc\w*|"
        r"mineure?s?|tricher|professionnel|comprends|autre chose|punie?s?|loi|arme\w*))\b"
    ),
    although=r"^(?:bien que|même si|quoique|malgré)\b",
    contrast=(
        r"[,;–—] ?(?:mais|cependant|toutefois|néanmoins|en revanche)\b,? |^(?:cependant|toutefois|mais|néanmoins|en "
        r"général|en revanche)\b,? "
    ),
    closing=(
        r"\b(?:je (?:peux|pourrais|suis|vous|te|serais|recommande|comprends|reste)|puis-je|n'hésite\w*|"
        r"si (?:vous|tu)|"
        r"y a-t-il|souhaitez|aimeriez|voulez|veuillez|s'il vous|s'il te|peut-être|plutôt|merci|illéga\w*|illicite\w*|"
        r"dangereu\w*|nuisible\w*|nuire|éthique\w*|violen\w*|sécurité|sûr\w*|loi|lois|légal\w*|règles?|politiques?|"
        r"vie privée|respect\w*|professionnel\w*|consult\w*|avocat\w*|médecin\w*|aide\w*|contact\w*|adress\w*|"
        r"discrimin\w*|haine|offens\w*|mon (?:but|rôle|objectif)|droits?|risque\w*|grave\w*|délit|vous pouvez "
        r"(?:copier|consulter|coller|contacter|vérifier)|site|officiel\w*)\b"
    ),
)
