"""Every results.json that a test has a run write is valid by the published JSON Schema, and by the types behind it."""

import json
from functools import cache
from pathlib import Path

import jsonschema

from cad_exp.reporting import results
from cad_exp.reporting.schema import ResultFile

SCHEMA = Path(__file__).parents[1] / "docs" / "reference" / "results.schema.json"


def demand() -> None:
    """From now on a run of this process, and of its forks, fails at a results.json that is not valid."""
    write = results.Results._write

    def checked(self: results.Results) -> None:
        write(self)
        if self.folder is not None:
            content = json.loads((self.folder / results.FILE).read_text(encoding="utf-8"))
            ResultFile.model_validate(content)
            if content["run"]["complete"]:  # slower than the types
                published().validate(content)

    results.Results._write = checked


@cache
def published() -> jsonschema.Draft202012Validator:
    """The schema as a reader of the documentation finds it."""
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
