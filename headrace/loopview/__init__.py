"""The loop for people: what the control topics say, as plain data and as text; and a person's word, written there.

    history.py    the control topics as events with their places
    standing.py   of one model: who is in charge since when, every switch, what waits
    status.py     all models now
    explain.py    one retraining from its causes to what followed
    text.py       status and explanation as text
    card.py       what is known of a version, for its model card
    log.py        the audit log: its entries, and whether it was changed
    word.py       promote, rollback, approve, retrain: a verdict by a person
"""

from headrace.loopview.explain import explain
from headrace.loopview.history import CONTROL, History, Placed, read, topic_of
from headrace.loopview.status import status
from headrace.loopview.text import explain_text, status_text

__all__ = ["CONTROL", "History", "Placed", "explain", "explain_text", "read", "status", "status_text", "topic_of"]
