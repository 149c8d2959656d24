"""What a run reports, whoever listens."""

from pathlib import Path
from typing import Any


class Tracker:
    """What a run reports. This one keeps nothing: it is what tracking.mode=disabled gives."""

    def log_facts(self, run: dict[str, Any]) -> None:
        """Report the section `run` of results.json: where and from what the numbers were made, and how long it took."""

    def log_metrics(self, metrics: list[dict[str, Any]]) -> None:
        """Report metrics, as in results.json."""

    def log_attribution(self, folder: Path | str) -> None:
        """Report the attribution in a folder: per granularity a table of named components and signed scores."""

    def log_images(self, images: dict[str, Path | str]) -> None:
        """Report picture files by the name under which they are to appear."""

    def log_page(self, name: str, path: Path | str) -> None:
        """Report a page of HTML by the name under which it is to appear."""

    def log_records(self, records: Path, images: dict[str, list[Path]]) -> None:
        """Report what the judges said of every image. images: variant -> files in the order of the records."""

    def log_artifact(self, path: Path | str, type: str) -> None:
        """Keep a file or a folder as an artifact of this type ("attribution", "edit", "results")."""
