"""`headrace demo`: a year of real flights through real Kafka, in acts. `run.py` is the score, the acts are the play.

    data      the flights, as two streams                  folder    a project of its own for each run
    load      flights into topics, at once or day by day   workers   `headrace run`, started, killed, stopped
    watch     offsets, quarantine, control topics          verify    every output counted by its source position
    view      what a terminal shows meanwhile              report    what remains: report.html and summary.json

Of the last act, the loop:

    features  what the model is given                      replay    its flows, and the year cut into weeks
    told      what the loop has said so far                baselines the same model without a loop, beside it
    loopshow  the same as a picture                        referee   every prediction made again, every decision checked
    looppage  the same in the report
"""
