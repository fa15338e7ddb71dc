"""The report of an experiment: `collect` reads runs into plain data, `markdown` and `page` write that data for people.

report.json holds everything; the other two only choose words and layout.
"""
