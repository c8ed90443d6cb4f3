"""The audit of a student's privacy: what a student reveals about the rows that it learned from. The audit of a corpus's
privacy is in `synthgen.privacy`.
"""
