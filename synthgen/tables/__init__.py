"""The extensible tables: engines, strategies, kinds of student, checks, edits, sweeps, formats, audits.

A table is a literal dictionary. An entry holds all facts about one engine, one strategy and so on: its section of the
recipe, its requirements and capabilities, and the functions that do the work. Functions are named as "module:function"
and loaded when they are used. Importing a table is therefore fast, and a table does not import the code that uses its
entries. To add an entry, write one function and one entry; docs/extending.md has an example for each table.
"""
