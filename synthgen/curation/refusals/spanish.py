"""The phrases with which assistants decline in Spanish. `synthgen.curation.refusals.language` describes the fields."""

from __future__ import annotations

from synthgen.curation.refusals.language import Language

_ES_DO = (
    r"(?:ayudar|asistir|cumplir|responder|contestar|proporcionar|proveer|dar(?:te|le|les|os)?\b(?! (?:más|un paso|"
    r"crédito))|ofrecer|brindar|generar|crear|escribir|redactar|producir|compartir|hacer(?:lo\b| (?:eso|esto|algo así|"
    "ese|esa|lo que|recomendaciones|predicciones|llamadas|comentarios|diagn))|discutir|hablar|opinar|participar|"
    "acceder|navegar|abrir|ver (?:imágenes|archivos|enlaces|el|la|tu|esa|ese|videos)|continuar|completar|atender|"
    r"satisfacer|facilitar|revelar|divulgar|apoyar|promover|recomendar|realizar|ejecutar|decir(?:te|le|les)?\b|"
    "comentar|predecir|diagnosticar|sentir (?:emociones|amor|nada)|experimentar|tener (?:emociones|sentimientos|"
    "opiniones|una|preferencias)|complacer|contribuir|colaborar|procesar|traducir|resumir|mostrar|enseñar|explicar|"
    "emitir|expresar|involucrar|conversar|fomentar|aceptar (?:esa|esta|tu|su) (?:solicitud|petición)|enviar|reservar|"
    "reproducir|leer (?:el|la|tu|ese|archivos)|buscar|seguir con|adoptar|fingir|especular|juzgar|consultar|verificar|"
    "confirmar)"
)

SPANISH = Language(
    starts=(
        "[¡¿]?(?:lo siento|lo lamento|lamento|siento|lamentable|desafortunad|desgraciad|por|disculp|perd|mis|"
        r"te pido|le pido|pido|como|entiendo|comprendo|sé|gracias|agradezco|me\b|no\b|aunque|si bien|dado|"
        r"debido|ya que|porque|es[aoet]*\b|tu\b|su\b|hola|buen|ante|primero|quiero|debo|tengo|sin|pero|así|"
        r"actual|en este|soy|a pesar|con|respet|ay|vaya|mm|proporcionar|ayudar|crear|escribir|generar|al\b|"
        r"honesta|siendo|para|yo\b|qu|sería|rechazo|prefiero|carezco|va\b|viola|solo|sólo|cambi|hablemos|está)"
    ),
    speaks=(
        "puedo",
        "podr",
        "debo",
        "deba",
        "voy a",
        "quiero",
        "deseo",
        " soy ",
        "estoy",
        "tengo",
        "cuento",
        "dispongo",
        "poseo",
        "siento",
        "creo",
        "considero",
        " me ",
        " mis ",
        " mi ",
        "nuestr",
        "prefiero",
        "rechaz",
        "carezco",
        "imposible",
        "lamento",
        "irresponsable",
        "haré",
        "aré",
        "eré",
        "iré",
        "comparto",
        "genero",
        "proporciono",
        "ofrezco",
        "escribo",
        "no es ",
        "viola",
        "infringe",
        "supera",
        "fuera de",
    ),
    denies=(
        "no ",
        "ni ",
        "imposible",
        "negarme",
        "rechaz",
        "declinar",
        "rehusar",
        "abst",
        "me niego",
        "carezco",
        "irresponsable",
        "olo puedo",
        "ólo puedo",
        "contra",
        "viola",
        "infringe",
        "incumple",
        "excede",
        "supera",
        "sobrepasa",
        "fuera",
        "más allá",
        "conflicto",
        "impide",
        "permite",
        "prohíbe",
        "cambi",
        "hablemos",
    ),
    declines=(
        (
            (
                r"\bno (?:(?:me|te|le|lo|les|se|os) ){0,2}(?:puedo|podré|podría|debo|voy a|quiero|deseo|logro|(?:estoy|"
                r"me encuentro) (?:en (?:condiciones|posición|capacidad)|autorizad\w|capacitad\w|diseñad\w|programad\w|"
                r"dispuest\w|facultad\w|habilitad\w)(?: de| para| a)?|soy capaz de|tengo (?:permitido|la (?:capacidad|"
                "posibilidad|facultad|autorización) de|permiso para)|"
                "(?<=me )(?:es posible|está permitido|resulta posible)|siento "
                r"cómod\w|sería (?:apropiado|ético|correcto|responsable))\b[^.]{0,40}?\b(?:"
            )
            + _ES_DO
            + ")"
        ),
        r"\bno (?:me siento|estoy) cómod\w (?:con|\w+ndo)",
        r"\b(?:lamento|siento|lamentablemente|perdona por)(?: mucho)? no poder\b",
        (
            r"\bprefiero no\b|\bsería irresponsable\b|\bno soy (?:la|el) (?:persona|opción|indicad\w)|\bno "
            "(?:comparto|genero|proporciono|ofrezco|doy|escribo|participo en|revelo|facilito) (?!mucho|nada|clases)|"
            r"\bno estoy hech[oa] para\b|\b(?:eso|esto|ello) (?:supera|excede|sobrepasa) mis?\b|\b(?:me (?:es|resulta)"
            r") imposible\b|\bno (?:creo|pienso|considero) que (?:deba|sea)\b|\bno me corresponde\b|\bno (?:sé|"
            r"entiendo) cómo (?:podría|puedo) ayudar\w*|\bno est[áa] (?:dentro de|entre) mis\b"
        ),
        (
            r"\b(?:debo|tengo que|he de|necesito|quisiera|voy a tener que|prefiero|me veo obligad\w a)(?: "
            "respetuosamente)? (?:negarme|rechazar|declinar|rehusar|abstenerme|no (?:responder|hablar|hacer|escribir|"
            r"opinar|comentar))|\bme (?:niego a|abstengo)|\b(?:^|yo )rechazo\b"
        ),
        (
            r"\bno (?:te |le |os |les |lo )?(?:haré(?: eso| esto| algo| tal|$|[.,])|ayudaré|escribiré|crearé|generaré|"
            "proporcionaré|daré (?:instrucciones|información|consejos|detalles|esa)|participaré|responderé|"
            "compartiré)"
        ),
        (
            r"\bno (?:es|son) (?:algo|una (?:tarea|pregunta|solicitud)|un tema) (?:con l[oa] que|que|en l[oa] que|a "
            "l[oa] que|sobre el que)(?: yo)? (?:pueda|puedo|esté|me)"
        ),
        (
            r"\bno (?:es|sería|considero|me parece|creo que sea) (?:apropiado|ético|correcto|adecuado|posible)"
            r"\b[^.]{0,20}(?:que yo|para mí|por mi parte|(?:dar|escribir|hablar|opinar|especular|compartir|"
            "proporcionar|generar))"
        ),
        (
            r"(?:va(?:n)?|iría|está|atenta) (?:en )?contra (?:de )?(?:mis|las|nuestras|mi)\b|\b(?:viola|infringe|"
            r"incumple|contraviene|no cumple(?: con)?|excede|entra en conflicto con)\b[^.]{0,20}(?:mis|las|nuestras|"
            r"mi|los)\b[^.]{0,30}(?:políticas?|normas?|directrices|principios|condiciones|pautas|reglas|programación|"
            r"capacidad\w*|lineamientos)"
        ),
        (
            r"\b(?:fuera|más allá) de (?:mis?|mi) (?:alcance|capacidad\w*|ámbito|límites|área)|\bmis? (?:\w+ )"
            "?(?:directrices|políticas|normas|programación|principios|pautas|diseño)[^.]{0,40}(?:no (?:me )"
            "?permiten?|(?:me )?impiden?|(?:me )?prohíben?)"
        ),
        (
            r"\b(?:no (?:tengo|poseo|dispongo de|cuento con)|carezco de)\b (?:(?:una|la|el|las|los|mis|propias|ningún|"
            "ninguna) ){0,2}(?:acceso|capacidad de|opinión|opiniones|sentimientos|emociones|preferencias|"
            "(?:información|datos) (?:en tiempo|actualizad|personal|sobre (?:personas|es[ae] persona))|experiencias|"
            "creencias|habilidad|permitido|forma de (?:acceder|saber)|un cuerpo|cuerpo|conciencia|recuerdos)"
        ),
        (
            r"\b(?:como|soy|siendo|al ser) (?:(?:una?|simple|solo|gran|un asistente|asistente|virtual|de|modelo|"
            r"programa|sistema|sólo|tu) ){0,4}(?:ia|inteligencia artificial|modelo (?:de|lingüístico)\b[^,.]{0,25}|"
            r"chatbot|asistente (?:virtual|de ia))\b(?! (?:que )?(?:investig|ingenier))[^.]{0,100}?\b(?:no|carezco|ni)"
            r"\b"
        ),
        (
            r"\b(?:cambiemos|podemos cambiar|hablemos) de (?:tema|otra cosa)|\bno (?:genero|creo|escribo|produzco|"
            r"proporciono|participo en|apoyo|comparto|ofrezco) (?:\w+ ){0,2}(?:contenido|material|instrucciones|"
            "información|consejos|ese tipo|este tipo)"
        ),
    ),
    idioms=(
        ".{0,15}?(?:niego a (?:creer|aceptar)|puedo decir que|prefiero no (?:pensar|saber)|dejar de|evitar|"
        r"recomendar\w*[^.]{0,25} (?:lo suficiente|más|suficiente)|esperar|creer|decir\w* (?:lo |cuánto|cuán|qué tan)|"
        r"explicar\w* (?:lo |cuánto)|hablar más|ayudar en nada más|quiero hablar)"
    ),
    openers=(
        "(?:¡?hola|lo siento|lo lamento|lamento|siento|lamentablemente|desafortunadamente|desgraciadamente|por "
        r"desgracia|disculp|perd[oó]n|mis disculpas|te pido|le pido|pido|como\b|entiendo|comprendo|sé que|gracias|"
        r"agradezco|me disculpo|no,|no\b|aunque|si bien|dado que|debido a|ya que|porque|es[ao]\b|est[aeo]\b|tu\b|su\b|"
        r"hola|buen|ante todo|primero|quiero|debo|sin embargo|pero\b|así que|por\b|actualmente|en este momento|soy\b|"
        r"a pesar|con todo respeto|respet|ay|vaya|mmm|ese|proporcionar|ayudar|crear|escribir|generar|al\b|"
        r"honestamente|siendo|con\b|es una|es importante|para\b|me temo|al ser|yo\b|qué\b)"
    ),
    everything=(
        ".*?(?:cumplir|ayudar(?:te|le|les|los?)?(?: con| en)?(?: (?:eso|esto|ello|esa|esta|ese|este|tu|su)"
        r"\b[^,]{0,40})?[.!]*$|(?:esa|esta|tu|su) (?:solicitud|petición|pregunta)|hacer (?:eso|esto)|negarme|rechazar|"
        "declinar|haré|no poder ayudar|ayudaré|ayudarte|contra de)"
    ),
    weak=(
        r"\bno (?:(?:me|te|le|lo|la|les|se|os) ){0,2}(?:puedo|podré|podría|voy a|debo|quiero|pienso)\b (?!(?:ir|venir|"
        "dormir|esperar|creer|llegar|estar|encontrar|imaginar|asistir|acudir|salir|quedar|dejar|evitar|parar|más|"
        r"perder|vivir|ver|pensar|decidir|prometer|olvidar|negar|tomar|saber)\w*\b)\w+|\bno (?:(?:te|le|les|lo|la|os) "
        r")?\w+ré\b|\bs[oó]lo puedo (?:responder|ayudar|contestar|hablar)|(?<=pero )no \w+o\b"
    ),
    support=(
        r"\b(?:siento|lamento|lamentablemente|disculp\w*|perd[oó]n\w*|desafortunadamente|temo|porque|ya que|pues|no "
        "está bien|intimidar|ia|inteligencia artificial|modelo de lenguaje|asistente virtual|solicitud|petición|"
        r"ilegal\w*|delito|peligro\w*|dañ\w*|\w*étic\w*|políticas?|normas?|derechos de autor|privacidad|privad\w*|"
        r"engañ\w*|segur\w*|violen\w*|odio|discrimin\w*|amenaz\w*|acos\w*|menor(?:es)?|trampa|profesional|entiendo|"
        r"comprendo|otra cosa|arma\w*)\b"
    ),
    although=r"^(?:aunque|si bien|a pesar de|pese a)\b",
    contrast=(
        r"[,;–—] ?(?:pero|sin embargo|aunque|no obstante)\b,? |^(?:sin embargo|pero|no obstante|aun así|en general|"
        r"por lo general)\b,? "
    ),
    closing=(
        r"\b(?:puedo|podría|podríamos|estaré|estoy|te recomiendo|le recomiendo|recomiendo|sugiero|por favor|si "
        "(?:necesitas|tienes|quieres|deseas|estás|necesita|tiene|quiere|desea|conoces|crees|pegas|compartes|copias)|"
        r"hay (?:algo|alguna)|te gustaría|le gustaría|qué tal|en su lugar|en cambio|quizás?|tal vez|gracias|ilegal\w*|"
        r"peligros\w*|dañ\w*|ética?\w*|violen\w*|segur\w*|ley(?:es)?|legal\w*|normas?|políticas?|privacidad|respet\w*|"
        r"profesional\w*|consult\w*|abogad\w*|médic\w*|ayuda\w*|busc\w*|contact\w*|discrimin\w*|odio|ofensiv\w*|mi "
        r"(?:objetivo|propósito|función)|derechos|delito|grave\w*|riesgo\w*|oficial\w*|puedes (?:consultar|copiar|"
        r"pegar|buscar|acudir|llamar)|hazme)\b"
    ),
)
