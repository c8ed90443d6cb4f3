"""Tables of what grows: strategies, engines, kinds of student, edits, checks, sweeps, formats. One entry owns every fact of a thing."""
