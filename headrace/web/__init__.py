"""HTTP as a source and as a sink of records.

    source.py     the source's configuration, and which of the two it is
    listen.py     a webhook: what is posted, answered once it is in Kafka
    poll.py       a URL that is asked again and again
    seen.py       the idempotency keys of a webhook, as positions of the source
    bodies.py     JSON bodies cut into records, and records as columns
    sink.py       records → requests, sent until they are answered
    requests.py   records cut into requests
    retry_after.py  how long a server asks to be left alone
"""
