"""Rows from files: CSV, JSON Lines, Parquet and Avro containers, read in bounded pieces as rows of an Avro schema.

    reader = open_reader(Path("flights.csv"), schema)
    while (piece := reader.read(20_000)) is not None:
        piece.rows        # Arrow rows of schema.arrow
        piece.bad         # what could not become a row, with line, original bytes and reasons
        piece.position    # where the next piece begins: give it to open_reader to go on there

A record is never dropped silently: it is a row, or it is in `bad`.
"""

from headrace.ingest.piece import Bad, Options, Piece, Reader
from headrace.ingest.reader import FORMATS, format_of, open_reader, open_stream

__all__ = ["FORMATS", "Bad", "Options", "Piece", "Reader", "format_of", "open_reader", "open_stream"]
