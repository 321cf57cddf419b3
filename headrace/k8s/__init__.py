"""Kubernetes manifests of a flow: rendered from its plan, and any manifest checked as strictly as an API server does.

    manifests(plan, options)  → objects, as data         headrace/k8s/render.py
    check(text, file)         → findings, with lines     headrace/k8s/check.py
    dump(objects)             → YAML, the same bytes for the same objects
"""

from headrace.k8s.check import check, documents
from headrace.k8s.render import Options, manifests
from headrace.k8s.text import dump

__all__ = ["Options", "check", "documents", "dump", "manifests"]
