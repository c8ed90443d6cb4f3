"""Writes spdx.json, which describes a run in SPDX 3.0.1 (JSON-LD). The corpus is a DatasetPackage, and the student is
an AIPackage. https://spdx.github.io/spdx-spec/v3.0.1/

The elements conform to the profiles Core, Software and SimpleLicensing. The profiles AI and Dataset also ask for a
supplier, a place to download from and a time of release. A run does not state these facts, so the document does not
claim the profiles AI and Dataset.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from synthgen import durable
from synthgen.exporting import facts
from synthgen.exporting.card import About
from synthgen.exporting.description import Student, Subject
from synthgen.exporting.licenses import Named, joined, named
from synthgen.results.audit import StoredAudit
from synthgen.results.measures import middle

Element = dict[str, object]
_VERSION = "3.0.1"
_CONTEXT = f"https://spdx.org/rdf/{_VERSION}/spdx-context.jsonld"
_NO_LICENSE = "expandedlicensing_NoAssertionLicense"
_ANYTHING = "NoAssertionElement"
_CREATION = "_:creation"
_MODELS = ("generator", "logits", "rewriter", "judge", "student_base")
_RELATIONS = {
    "generator": "generates",
    "logits": "generates",
    "rewriter": "generates",
    "seed": "ancestorOf",
    "dataset": "ancestorOf",
    "student_base": "ancestorOf",
}
"""The relation of a source to the corpus or to the student, by the source's role. Sources with other roles have the
relation `other`."""
_IN_ROWS = ("generator", "logits", "rewriter", "seed", "dataset")
"""Roles of sources whose terms may apply to the rows."""


class _Graph:
    """The elements of the document. Each element has its own name below the document's namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.elements: list[Element] = []
        self._licenses: dict[str, str] = {}

    def add(self, kind: str, place: str, /, **values: object) -> str:
        """Add an element, and return its id, which ends in `place`. Values that are None or empty are left out."""
        identifier = f"{self.namespace}#{place}"
        kept = {key: value for key, value in values.items() if value not in (None, "", [], ())}
        self.elements.append({"type": kind, "spdxId": identifier, "creationInfo": _CREATION, **kept})
        return identifier

    def relate(self, from_: str, kind: str, to: str | Sequence[str], comment: str = "") -> None:
        """Add a relationship."""
        targets = [to] if isinstance(to, str) else list(to)
        values = {"from": from_, "to": targets, "relationshipType": kind, "comment": comment}
        self.add("Relationship", f"relationship-{len(self.elements)}", **values)

    def license(self, license: Named | None) -> str:
        """The id of a license's element or, if the license is not known, SPDX's id for “no assertion”."""
        if license is None:
            return _NO_LICENSE
        if license.expression not in self._licenses:
            own = {key: address for key, address in license.addresses.items() if key.startswith("LicenseRef-")}
            places = [{"type": "DictionaryEntry", "key": key, "value": own[key]} for key in sorted(own) if own[key]]
            without = sorted(key for key, address in own.items() if not address)
            self._licenses[license.expression] = self.add(
                "simplelicensing_LicenseExpression",
                f"license-{len(self._licenses) + 1}",
                simplelicensing_licenseExpression=license.expression,
                simplelicensing_customIdToUri=places,
                comment=f"Not in the catalog of licenses: {', '.join(without)}." if without else "",
            )
        return self._licenses[license.expression]


def describe(subject: Subject) -> dict[str, object]:
    """The content of spdx.json for a corpus and its student."""
    about, student = subject.about, subject.student
    files = student.training.files if student else {}
    graph = _Graph(f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, durable.digest([about.corpus_sha256, files]))}")
    agent = graph.add("SoftwareAgent", "synthgen", name="synthgen")
    corpus = _corpus(graph, subject)
    roots = [corpus]
    sources: dict[tuple[str, str], str] = {}
    for one in about.sources:
        _source(graph, sources, one, corpus)
    if student:
        roots.append(_student(graph, sources, subject, student, corpus))
    every = [str(one["spdxId"]) for one in graph.elements]
    graph.add(
        "SpdxDocument",
        "document",
        name=f"{about.name}: corpus{' and student' if student else ''}",
        comment=" ".join(facts.uses(about)),
        profileConformance=["core", "software", "simpleLicensing"],
        rootElement=roots,
        element=every,
    )
    created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    creation = {"type": "CreationInfo", "@id": _CREATION, "specVersion": _VERSION, "created": created}
    return {"@context": _CONTEXT, "@graph": [{**creation, "createdBy": [agent]}, *graph.elements]}


def _corpus(graph: _Graph, subject: Subject) -> str:
    """Add the corpus with its files and its license."""
    about = subject.about
    assert about.manifest is not None
    files = about.manifest["files"]
    corpus = graph.add(
        "dataset_DatasetPackage",
        "corpus",
        name=about.name,
        description=about.manifest["description"],
        comment=f"The list of the corpus's files has the sha256 {about.corpus_sha256}. {' '.join(facts.uses(about))}",
        software_primaryPurpose="data",
        software_attributionText=facts.duties(about.audit),
        dataset_datasetType=["text"],
        dataset_datasetSize=sum(one["bytes"] for one in files.values()),
        dataset_dataCollectionProcess=facts.collection(about),
        dataset_dataPreprocessing=facts.preprocessing(about),
        dataset_hasSensitivePersonalInformation="noAssertion",
        dataset_intendedUse=" ".join(facts.uses(about)),
        dataset_knownBias=facts.biases(about.audit),
    )
    _files(graph, corpus, "corpus", {name: one["sha256"] for name, one in files.items()})
    alike = {one["license"] for one in about.sources}
    stated = about.license or (next(iter(alike)) if len(alike) == 1 else "")
    comment = "" if about.license or not stated else "All sources of the rows have this license."
    graph.relate(corpus, "hasDeclaredLicense", graph.license(named(stated)), comment)
    if about.audit is None:
        graph.relate(corpus, "hasConcludedLicense", _NO_LICENSE, "No audit was made.")
    else:
        _concluded(graph, corpus, about.audit, _IN_ROWS)
    return corpus


def _files(graph: _Graph, package: str, prefix: str, hashes: Mapping[str, str]) -> None:
    """Add the files of a package with their hashes."""
    found = [
        graph.add(
            "software_File",
            f"{prefix}-file-{number}",
            name=name,
            verifiedUsing=[{"type": "Hash", "algorithm": "sha256", "hashValue": sha256}],
        )
        for number, (name, sha256) in enumerate(sorted(hashes.items()), 1)
    ]
    if found:
        graph.relate(package, "contains", found)


def _concluded(graph: _Graph, package: str, audit: StoredAudit, roles: tuple[str, ...]) -> None:
    """Add the license that the audit found: the licenses of all sources with these roles, joined with AND."""
    license = joined([one.terms for one in audit.findings if one.role in roles])
    comment = f"The licenses of these sources together, as the audit of {audit.date} judged them: {', '.join(roles)}."
    if license is None:
        comment = f"The audit of {audit.date} does not know the license of every source, or there are none."
    graph.relate(package, "hasConcludedLicense", graph.license(license), comment)


def _source(graph: _Graph, known: dict[tuple[str, str], str], source: Mapping[str, object], target: str) -> None:
    """Add a source with its license, unless the document has the source already, and relate the source to the corpus or
    the student.
    """
    name, license, role = (str(source.get(key) or "") for key in ("source", "license", "role"))
    if (name, license) not in known:
        kind = "model" if role in _MODELS else "data"
        element = graph.add("software_Package", f"source-{len(known) + 1}", name=name, software_primaryPurpose=kind)
        graph.relate(element, "hasDeclaredLicense", graph.license(named(license)))
        known[name, license] = element
    graph.relate(known[name, license], _RELATIONS.get(role, "other"), target, f"Role of this source: {role}.")


def _student(graph: _Graph, known: dict[tuple[str, str], str], subject: Subject, student: Student, corpus: str) -> str:
    """Add the student with its files, its license and its sources."""
    training, about = student.training, subject.about
    settings = {key: value for key, value in training.train.items() if isinstance(value, (str, int, float, bool))}
    passage = training.audit
    gate = f"The audit when it was trained: {passage.text()}." if passage else "No audit is known from its training."
    if passage and passage.overridden:
        gate += " The audit did not pass; training was forced with --override-audit."
    if student.sources is None:
        gate += " Its sources besides the rows are not known, as no audit of this corpus is about this student."
    model = graph.add(
        "ai_AIPackage",
        "student",
        name=_name(student.folder, about),
        comment=gate,
        software_primaryPurpose="model",
        software_attributionText=facts.duties(about.audit),
        ai_typeOfModel=[training.kind] if training.kind else [],
        ai_informationAboutTraining=f"{training.student}; {training.steps} steps on {training.rows} rows; "
        f"{training.learns_by or training.learned_from}",
        ai_hyperparameter=[_entry(key, value) for key, value in sorted(settings.items())],
        ai_metric=_metrics(student),
        ai_useSensitivePersonalInformation="noAssertion",
    )
    _files(graph, model, "student", training.files)
    if training.curated_sha256 == about.corpus_sha256:
        graph.relate(model, "trainedOn", corpus)
    else:
        graph.relate(model, "trainedOn", _ANYTHING, "The student was trained on other rows than this corpus has now.")
    graph.relate(model, "hasDeclaredLicense", _NO_LICENSE, "Nobody stated a license of the student.")
    if about.audit is None or student.sources is None:
        graph.relate(model, "hasConcludedLicense", _NO_LICENSE, "No audit of this corpus is about this student.")
    else:
        _concluded(graph, model, about.audit, ("student_base",))
    for one in student.sources or ():
        _source(graph, known, one, model)
    return model


def _name(folder: Path, about: About) -> str:
    """The name of the student's folder. If the folder lies in the run's folder, the result begins with the run's
    name.
    """
    name = folder.resolve().name
    return f"{about.name}/{name}" if folder.resolve().parent.name == about.name else name


def _metrics(student: Student) -> list[Element]:
    """The student's values of the measures of quality."""
    found = student.evaluation
    if found is None:
        return []
    row = found.table.get(found.student, {})
    values = {
        measure.title: middle(row.get(name)) for name, measure in found.measures.items() if measure.about == "quality"
    }
    return [_entry(title, value) for title, value in values.items() if value is not None]


def _entry(key: str, value: object) -> Element:
    return {"type": "DictionaryEntry", "key": key, "value": str(value)}
