"""headrace: streams of events, checked and shaped, to the models that live on them."""

__version__ = "0.1.0"
