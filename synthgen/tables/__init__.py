"""The tables of all that grows: engines, strategies, kinds of student, checks, edits, sweeps, formats, audits.

A table is a literal dictionary. An entry owns every fact of its thing: the section of the recipe that describes it,
what it needs and can do, and the functions that do the work. The functions are named as "module:function" and loaded
when they are used. So a table costs nothing to import, and it stands below everything that reads it. A new thing is
one function and one entry; docs/extending.md shows an example of each.
"""
