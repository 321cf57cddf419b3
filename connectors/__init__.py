"""Sources and sinks: one a file, imported as `headrace.connectors.<noun>`."""
