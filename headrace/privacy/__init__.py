"""Personal data: where fields go whose schema tags them (`headrace.pii`), and how they are protected there.

    lineage.py    a tagged field followed through the steps of a flow, column by column
    arrivals.py   the topics it arrives in; lint's remarks
    report.py     all of a flow, for `headrace privacy report`
"""
