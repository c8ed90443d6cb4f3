"""Tests of what a student reveals about the rows that it learned from. The tests of a corpus are in another package,
`synthgen.privacy`.
"""
