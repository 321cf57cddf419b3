"""`headrace demo`: a year of real flights through real Kafka, in three acts. `run.py` is the score, `acts.py` the play.

    data      the flights, as two streams                  folder    a project of its own for each run
    load      flights into topics, at once or day by day   workers   `headrace run`, started, killed, stopped
    watch     offsets and quarantine as they move          verify    every output counted by its source position
    view      what a terminal shows meanwhile              report    what remains: report.html and summary.json
"""
