"""What `join` and `lookup` are made of, apart from their settings.

    pairs   which rows belong together: by key and time, all or one to one
    kept    rows that wait in keyed state: Avro by key, with what is needed to send them on later
    table   what `lookup` looks things up in: rows in memory, by key or by key and time
    follow  where its rows come from: a file, or a compacted topic as it stands and as it changes
"""
