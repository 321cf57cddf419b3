"""The suite of ten by pointblank on polars. Its steps belong to a frame, so they are laid out for each; failing rows
are not collected, only counted. It has no step for a length, a form of time or columns that differ: those are polars'
expressions."""

from __future__ import annotations

import contracts_polars
import contracts_suite as ten
import pointblank as pb
import polars as pl

LENGTH = pl.col("tailnum").str.len_chars() == 6
ELSEWHERE = pl.col("origin") != pl.col("dest")
TIME = pl.col("time_hour").is_null() | pl.col("time_hour").str.to_datetime(ten.TIME, strict=False).is_not_null()


def check(frame: pl.DataFrame) -> dict[str, int]:
    done = (pb.Validate(frame)
            .col_vals_not_null("dep_time")
            .col_vals_between("distance", 50, 5000, na_pass=True)
            .col_vals_between("dep_delay", -30, 480, na_pass=True)
            .col_vals_in_set("carrier", ten.CARRIERS)
            .col_vals_regex("tailnum", ten.TAIL, na_pass=True)
            .col_vals_expr(pl.col("tailnum").is_null() | LENGTH)
            .col_vals_gt("arr_time", pb.col("dep_time"), na_pass=True)
            .col_vals_expr(ELSEWHERE)
            .col_vals_not_in_set("dest", ten.FAR)
            .col_vals_expr(TIME)
            .interrogate(collect_extracts=False, collect_tbl_checked=False))
    return dict(zip(ten.IDS, done.n_failed().values(), strict=True))  # type: ignore[union-attr]


ten.tell("pointblank", pb.__version__, *contracts_polars.frames(), check)
