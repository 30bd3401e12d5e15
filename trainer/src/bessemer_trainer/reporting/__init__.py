"""The HTML report: facts in, one self-contained page out. It repeats verdicts and shows numbers as they were stored.

`reading` turns what the store holds into `facts`; everything else is pure. One file a section of the page.
"""
