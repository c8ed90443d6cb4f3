"""Writes croissant.json: a description of the rows of an export in Croissant 1.0, with the fields of its vocabulary for
responsible AI (RAI). https://docs.mlcommons.org/croissant/docs/croissant-spec.html

The description states only facts from the run, its audit and the files. Unknown facts are left out, or stated to be
unknown.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import durable
from synthgen.exporting import facts
from synthgen.exporting.card import About
from synthgen.exporting.licenses import named

_PARQUET = "application/x-parquet"
_CONFORMS = "http://mlcommons.org/croissant/1.0"
_CONTEXT: dict[str, object] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    **{
        key: f"cr:{key}"
        for key in (
            *("arrayShape", "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty"),
            *("fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField"),
            *("path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator"),
            *("source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}


def describe(folder: Path, about: About) -> dict[str, object]:
    """The content of croissant.json for an export, whose Parquet files and card lie in `folder`."""
    licenses, files = _licenses(about), list(about.files.items())
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS,
        "name": re.sub(r"[^\w.-]+", "-", about.name).strip("-") or "rows",
        "description": _description(about),
        **({"license": licenses} if licenses else {}),
        "keywords": ["synthetic", "distillation", "synthgen"] if about.manifest else ["synthgen"],
        **_responsible(about),
        "distribution": _distribution(folder, about),
        "recordSet": [_record_set(split, path, pq.read_schema(folder / path), about) for split, path in files],
    }


def _licenses(about: About) -> list[str]:
    """The address of the license that the publisher states, or the addresses of all sources' licenses. A license whose
    address is unknown is given by its name. Empty when one of these licenses is unknown, because the others alone would
    look like the license of the rows.
    """
    stated = [about.license] if about.license else sorted({one["license"] for one in about.sources})
    known = [named(one) for one in stated]
    if None in known:
        return []
    return sorted({address or name for one in known if one for name, address in one.addresses.items()})


def _description(about: About) -> str:
    manifest = about.manifest
    if manifest is None:
        return f"The rows of the data set {about.name}, as `synthgen export` wrote them."
    parts = [
        manifest["description"],
        f"The rows are those of the corpus whose list of files has the sha256 {about.corpus_sha256}.",
    ]
    return " ".join(part for part in parts if part)


def _distribution(folder: Path, about: About) -> list[dict[str, object]]:
    """One file for each split. Readers check the hash of a file before they read it."""
    return [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "description": f"{about.rows[split]} rows of the split {split}",
            "contentUrl": path,
            "contentSize": f"{(folder / path).stat().st_size} B",
            "encodingFormat": _PARQUET,
            "sha256": durable.sha256(folder / path),
        }
        for split, path in about.files.items()
    ]


def _record_set(split: str, path: str, schema: pa.Schema, about: About) -> dict[str, object]:
    """The rows of one split, with all columns."""
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The {about.rows[split]} rows of the split {split}.",
        "key": {"@id": f"{split}/id"},
        "field": [_field(column, split, path) for column in schema],
    }


def _field(column: pa.Field, split: str, path: str) -> dict[str, object]:
    """A column. A column of structs, or of lists of structs, has a sub-field for each value inside a struct. Lists are
    `repeated`.
    """
    name, kind = column.name, _stored(column.type)
    source = {"fileObject": {"@id": path}, "extract": {"column": name}}
    repeated = _is_list(kind)
    if repeated:
        kind = _stored(kind.value_type)
    column_id = f"{split}/{_id(name)}"
    field = {"@type": "cr:Field", "@id": column_id, "name": name, **({"repeated": True} if repeated else {})}
    if not pa.types.is_struct(kind):
        return {**field, "dataType": _data_type(kind), "source": source}
    inner = [
        {
            "@type": "cr:Field",
            "@id": "/".join([column_id, *map(_id, place)]),
            "name": "_".join(place),
            "dataType": _data_type(leaf),
            **({"repeated": True} if _is_list(leaf) else {}),
            "source": {**source, "transform": {"jsonPath": _json_path(place)}},
        }
        for place, leaf in _leaves(kind)
    ]
    return {**field, "subField": inner}


def _id(name: str) -> str:
    """The name of a column as a part of an id. Letters, digits, underscores, dots and dashes stay; all other characters
    are written as numbers. Ids must not have spaces.
    """
    return re.sub(r"[^\w.-]", lambda match: f"_x{ord(match.group()):x}_", name)


def _leaves(kind: pa.DataType, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], pa.DataType]]:
    """The values inside a struct: their names from the outside to the inside, and their types."""
    found: list[tuple[tuple[str, ...], pa.DataType]] = []
    for one in kind:
        inside = _stored(one.type)
        found += _leaves(inside, (*path, one.name)) if pa.types.is_struct(inside) else [((*path, one.name), inside)]
    return found


def _json_path(path: tuple[str, ...]) -> str:
    """The place of a value inside a struct. A name is quoted if it begins with a digit, or has characters other than
    letters, digits and underscores.
    """
    return ".".join(["$", *(name if re.fullmatch(r"[A-Za-z_]\w*", name) else f'"{name}"' for name in path)])


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type without an Arrow extension, such as the extension for JSON text."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _innermost(kind: pa.DataType) -> pa.DataType:
    while _is_list(kind):
        kind = _stored(kind.value_type)
    return kind


def _data_type(kind: pa.DataType) -> str:
    """The Croissant type for an Arrow type. A column without values counts as text."""
    kind = _innermost(kind)
    for is_kind, data_type in (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, f"cr:{str(kind).replace('uint', 'UInt').replace('int', 'Int')}"),
        (pa.types.is_float32, "cr:Float32"),
        (pa.types.is_float64, "cr:Float64"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_decimal, "sc:Float"),
        (pa.types.is_date, "sc:Date"),
        (pa.types.is_timestamp, "sc:DateTime"),
        (pa.types.is_time, "sc:Time"),
    ):
        if is_kind(kind):
            return data_type
    return "sc:Text"


def _responsible(about: About) -> dict[str, object]:
    """The fields of the vocabulary RAI. A field about which nothing is known is left out."""
    fields: dict[str, object] = {
        "dataCollection": facts.collection(about),
        "dataPreprocessingProtocol": facts.preprocessing(about),
        "machineAnnotationTools": facts.models(about, facts.WROTE) + facts.models(about, facts.JUDGED),
        "dataAnnotationProtocol": facts.annotation(about),
        "dataUseCases": facts.uses(about),
        "dataBiases": facts.biases(about.audit),
        "dataLimitations": facts.limitations(about),
        "personalSensitiveInformation": facts.personal(about),
    }
    return {f"rai:{name}": value for name, value in fields.items() if value}
