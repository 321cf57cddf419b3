"""The pipeline that trains on Kubeflow: its source, which needs the kfp SDK, and what it compiles to."""
