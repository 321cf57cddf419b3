"""Records by hand: what `headrace produce` and `headrace consume` do."""
