"""Behind `headrace contracts`: suites and schemas by name, a file read as one batch, verdicts for people.

    places.py   a suite or a schema as it is named on the command line; values of suite parameters
    files.py    a file as one batch of rows, with the line of each; what could not be read
    outcome.py  from what was asked to what is told
    judged.py   a verdict in words: what was found, which values, on which lines
    page.py     the same as one HTML page; html.py has what pages are made of
    sample.py   rows to learn from: of a file, or of a topic
    draft.py    a suite suggested of them, held against them
    windows.py  windows of flows, as the events of their verdicts tell of them
    windowpages.py, trend.py    an index, a page a window, what was found before as a picture
    reports.py  verdicts read from their topic; pages and results written
"""
