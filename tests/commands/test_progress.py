"""The line that shows the progress of a command."""

from __future__ import annotations

from synthgen.ui import Progress


def test_dollars_and_requests_in_flight():
    """The dollars are those of the run. When all rows are done, nothing waits for the server."""
    bar = Progress("generate", 60, "rows")
    bar.advance(10, resumed=True)
    assert (bar.cost(), bar.sending()) == ("", "")
    bar.remote(3, 4, "server slow", 5.6)
    assert (bar.cost(), bar.sending()) == ("$5.6000", "3/4 in flight (idle: server slow)")
    bar.remote(4, 4, "server slow", 5.6)
    assert bar.sending() == "4/4 in flight"
    bar.advance(50, failed=4)
    assert (bar.cost(), bar.sending()) == ("$5.6000", "")


def test_an_unknown_cost_is_not_shown():
    bar = Progress("generate", 1, "rows")
    bar.remote(0, 4, "", None)
    assert bar.cost() == ""
