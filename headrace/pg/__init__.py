"""PostgreSQL: a table as a source and as a sink of records.

    common.py      the connection and its errors, identifiers, types to and from Arrow
    source.py      incremental reading by a growing column; reading.py is what it is told
    describe.py    what a table or a query looks like to whoever reads it
    copied.py      COPY … TO STDOUT as Arrow columns
    sink.py        inserts, upserts and deletes by COPY, with Kafka's offsets in the same transaction
    rows.py        records as rows: what is put, what is deleted, in which order; as text for COPY
    table.py       what a table looks like to whoever writes it; made, and given columns
    offsets.py     the table headrace_offsets
"""
