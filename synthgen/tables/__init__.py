"""The extensible tables: engines, strategies, kinds of student, checks, edits, sweeps, formats, audits.

A table is a literal dictionary. An entry holds every fact of one thing: its section of the recipe, its requirements and
capabilities, and the functions that do the work. Functions are named as "module:function" and loaded when they are
used. The import of a table is therefore cheap, and a table imports none of the code that reads it. A new thing needs
one function and one entry; docs/extending.md shows an example of each.
"""
