"""Runs, corpora, students and data sets in a store: S3, Google Cloud Storage, Azure, and other kinds that fsspec knows.

    with stores.opened({"run": "s3://bucket/runs/first"}, "show") as places:
        places["run"]      # a folder on this machine's disk with the files of the run

Every command that takes a folder also takes a URL. The command works in a folder on the disk, its working folder. Files
are fetched before the command begins, and sent while it runs.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from synthgen import durable
from synthgen.errors import UserError
from synthgen.stores.address import READ_ONLY, Address, address, path_of
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.stores.objects import Store

P = ParamSpec("P")
R = TypeVar("R")

PLACES = ("run", "out", "path", "student", "held_out", "corpus", "file", "measured")
"""The names of the arguments that may be URLs, for all functions and commands."""
_ONLY_READ = ("show", "open", "plan")
_ROWS_ONLY = ("show",)
_NOT_ROWS = ("logits/", "hidden/", "student/")
_ONE_FILE = ".jsonl"  # the end of the name of an output that is one file and no folder
_WAIT = 0.2  # seconds between two looks whether another command has fetched its files
_RETRIES = 3  # how often a run is fetched again if another process changed it meanwhile


@contextmanager
def opened(values: Mapping[str, object], command: str, ui: UI | None = None) -> Iterator[dict[str, object]]:
    """The arguments of a command, with a working folder in place of each URL. What the command writes there is sent to
    the store. Nothing happens when no argument is a URL.

    Raises UserError when a store cannot be read or written, and when another process writes to the same run.
    """
    found = {name: place for name in PLACES if (place := address(values.get(name)))}
    changed = {
        name: path_of(str(values[name])) for name in PLACES if str(values.get(name, "")).lower().startswith("file:")
    }
    if not found:
        yield {**values, **changed}
        return
    if command == "init":
        raise UserError(
            "a recipe and its seeds are files on a disk, so `synthgen init` takes no URL", "copy the file to a disk"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "several processes cannot share the working folder of a store",
            "copy the run to a disk that all of them see",
        )
    written = {place.root for name, place in found.items() if _writes(name, values, command)}
    _check_apart(found)
    for root in written:  # before anything is fetched
        if (scheme := Address(root).scheme) in READ_ONLY:
            raise UserError(f"{root}: {scheme}:// is only read", "give a folder or another store with -o")
    with ExitStack() as held:
        for root in dict.fromkeys(place.root for place in found.values()):
            held.enter_context(_session(Address(root), root in written, command, ui or UI(quiet=True)))
        folders = {name: place.working / place.inside for name, place in found.items()}
        yield {**values, **changed, **folders}


def on_stores(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arguments may also be URLs. `synthgen` and `distill` wrap their public functions with it."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        with opened(bound.arguments, function.__name__, cast(UI | None, bound.arguments.get("ui"))) as values:
            bound.arguments.update(values)
            return function(*bound.args, **bound.kwargs)

    return wrapped


def _writes(name: str, values: Mapping[str, object], command: str) -> bool:
    """Whether a command writes to the place that the argument `name` names. With -o, most commands only read the other
    places.
    """
    if name == "out":
        return True
    if command in _ONLY_READ or values.get("plan") or name in ("held_out", "corpus", "file", "measured"):
        return False
    return values.get("out") is None or command == "audit"


def _check_apart(found: Mapping[str, Address]) -> None:
    """Raise UserError when the output contains a place that is read: their working folders would not show that one
    place contains the other.
    """
    out = found.get("out")
    for name, place in found.items():
        if out and name != "out" and place.url.startswith(f"{out.root}/") and place.root != out.root:
            raise UserError(
                f"{out.url} contains {place.url}, which is an input of this command", "give another URL with -o"
            )


@contextmanager
def _session(place: Address, writes: bool, command: str, ui: UI) -> Iterator[None]:
    """Fetch a run, and send what changes in its working folder until the end of the context."""
    from synthgen.stores.lease import Lease, owner_of
    from synthgen.stores.mirror import Mirror
    from synthgen.stores.objects import Store

    store = Store(place.root)
    mirror = Mirror(place, store)
    ui.names[str(place.working)] = place.root
    wanted = (
        (lambda name: not any(part in name for part in _NOT_ROWS)) if command in _ROWS_ONLY else (lambda name: True)
    )
    if writes and command == "export" and place.root.endswith(_ONE_FILE):
        with _one_file(place, store):
            yield
        return
    if not writes or store.is_object():
        with _turn(place):
            try:
                with durable.lock(place.state):
                    mirror.load()
                    for _ in range(_RETRIES):
                        there = mirror.fetch(owner_of(store) == mirror.owner, wanted)
                        if there == {name: entry for name, entry in store.list().items() if name in there}:
                            break
            except UserError as error:  # a command that writes holds the lock, and has fetched the run
                if "another process" not in error.message:
                    raise
        yield
        return
    with ExitStack() as held:
        with _turn(place):
            held.enter_context(durable.lock(place.state))
            mirror.load()
            mirror.save()  # keeps the owner's name, in case this process is killed
            lease = Lease(store, mirror.owner)
            mirror.hold(lease)
            held.callback(mirror.stop)
            mirror.fetch(lease.ours, wanted)
        mirror.begin()
        try:
            yield
        except BaseException:
            try:
                mirror.end()
            except UserError as error:
                ui.error(error.message, error.hint)
            raise
        mirror.end()


@contextmanager
def _turn(place: Address) -> Iterator[None]:
    """Wait until no other command on this machine fetches files into the same working folder."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(durable.lock(place.state.with_name(f"{place.state.name}-fetching")))
                break
            except UserError as error:
                if "another process" not in error.message:
                    raise
            time.sleep(_WAIT)
        yield


@contextmanager
def _one_file(place: Address, store: Store) -> Iterator[None]:
    """Send the single file that a command writes. The command sees an empty file where an object is there already, so
    that it refuses to replace the object.
    """
    with durable.lock(place.state):
        durable.remove(place.working)
        if store.is_object():
            place.working.touch()
        yield
        if place.working.is_file():
            store.create("", place.working)
            place.working.unlink()
