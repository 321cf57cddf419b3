"""A contract over windows of records: what is kept of an open one, what is checked beside the suite, the verdict."""
