"""`synthgen export` writes the rows of a run or a data set in the formats of other tools.

    exported = synthgen.export("runs/first", to="messages", out="exports/first")
    exported.rows                     # {"train": 148, "test": 32}

The table ROW_FORMATS lists the formats. A row that a format cannot hold without loss is an error, and nothing is
written.
"""
