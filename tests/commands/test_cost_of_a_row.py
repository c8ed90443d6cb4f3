"""The dollars a row in the progress of a run."""

from synthgen.ui import Progress


def test_dollars_a_row_are_those_of_all_rows():
    """Rows are counted when their shard is written, after their replies were paid. So the share of a row is shown when
    all rows are done. Earlier commands of the run may have paid for rows that this command writes, so their rows and
    dollars count too. Failures are no rows.
    """
    bar = Progress("generate", 60, "rows")
    bar.advance(10, resumed=True)
    bar.remote(0, 4, "", 1.0)
    bar.advance(10)
    bar.remote(4, 4, "", 5.6)
    assert bar.cost() == "$5.6000"
    bar.advance(40, failed=4)
    assert bar.cost() == "$5.6000, $0.100000 a row"


def test_an_unknown_or_absent_cost_is_not_shown():
    bar = Progress("generate", 1, "rows")
    bar.advance(1)
    assert bar.cost() == ""
    bar.remote(0, 4, "", None)
    assert bar.cost() == ""
