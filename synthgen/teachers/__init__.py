"""Opens teachers. The table ENGINES names the function that opens the teachers of each engine.

Example:

    teacher = open_teacher(recipe.teacher)        # local: a `Teacher`
    teacher = open_remote(section, options)       # not local: a `RemoteTeacher`
"""

from __future__ import annotations

import importlib.util
from typing import cast

from synthgen.errors import TeacherError, missing_extra
from synthgen.tables.engines import ENGINES, AnyTeacher
from synthgen.tables.reference import resolve
from synthgen.teachers.base import RemoteTeacher, Teacher, TeacherOptions


def open_teacher(section: AnyTeacher, options: TeacherOptions | None = None) -> Teacher:
    """Load a local teacher. Raises TeacherError, or UserError that names a missing extra."""
    if not ENGINES[section.engine].in_process:
        raise TeacherError(f"a teacher of engine '{section.engine}' is not local")
    return cast(Teacher, _open(section, options))


def open_remote(section: AnyTeacher, options: TeacherOptions | None = None) -> RemoteTeacher:
    """Open a teacher behind an API. Sends nothing. Raises TeacherError, or UserError that names a missing extra."""
    if ENGINES[section.engine].in_process:
        raise TeacherError(f"a teacher of engine '{section.engine}' is local")
    return cast(RemoteTeacher, _open(section, options))


def _open(section: AnyTeacher, options: TeacherOptions | None) -> object:
    engine = ENGINES[section.engine]
    if engine.package and importlib.util.find_spec(engine.package) is None:
        raise missing_extra(engine.package, engine.extra)
    try:
        return resolve(engine.opens)(section, options or TeacherOptions())
    except ModuleNotFoundError as error:
        if not engine.extra:
            raise
        raise missing_extra(str(error.name).partition(".")[0], engine.extra) from None
