"""The loop that keeps a model right: measure, decide, train, judge, switch. Logic here, its processors in processors/.

    measures, drift, detectors    how good predictions are, with and without labels; how inputs and losses moved
    policy                        verdicts in, at most one decision to retrain out; a pure state machine
    training                      a model's declaration, the split by time, candidates, the check for leaks
    gate, bootstrap               champion against challengers on the same held-out rows

These are pure: data in, data out, the same for the same seed. The other modules talk to MLflow and to orchestrators.
"""
