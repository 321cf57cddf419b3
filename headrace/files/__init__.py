"""Files as a source and as a sink of records.

    source.py      a file, or the files of a folder, as records
    watch.py       the files of a folder, or of a pattern
    lines.py       text as lines, a block at a time
    sink.py        records as parts of a folder, or as one file that grows
    parts.py       whole parts, named by the offsets they hold
    appended.py    one file, with a note of how long it is and where to go on
    formats.py     records as CSV, JSON Lines, text, Parquet, Avro
    jsontext.py    Arrow arrays as JSON texts, all at once
    places.py      what of a poll is stored already (for every sink that keeps offsets)
    disk.py        whole files, synced and renamed; locks
"""
