"""A suite suggested from data: `profile` looks at rows once, `suggest` says what an honest suite would ask of them."""
