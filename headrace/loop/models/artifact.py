"""A fitted pipeline as an MLflow model's files, and back.

Files are written in skops' format, and read with a list of trusted types of our own: loading a model runs none of its
code, and a model cannot widen what is trusted. Pickled models are refused.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.errors import UserError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

Floats = np.ndarray[Any, np.dtype[np.float64]]
TRUSTED = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "functools.partial",
           "sklearn.utils.validation.check_array")
"""Types that skops does not trust by itself and that gradient boosting has inside. The first holds indices of nodes
that are not checked: a forged file could make a prediction crash, but not run code. What a partial calls is audited
by itself."""
REFERENCE = "headrace.json"
REQUIREMENTS = ("scikit-learn", "numpy", "pandas", "pyarrow", "skops")
NAMES = ((pa.types.is_boolean, "boolean"), (pa.types.is_int64, "long"), (pa.types.is_uint32, "long"),
         (pa.types.is_integer, "integer"), (pa.types.is_float32, "float"), (pa.types.is_floating, "double"),
         (pa.types.is_decimal, "double"), (pa.types.is_temporal, "datetime"), (pa.types.is_binary, "binary"))
"""Arrow type → MLflow's name for it; text where none fits."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory, warm. `features` are the columns it reads, in order; `reference` is what was logged with it
    of the data it was trained on; `load_s` is how long loading and warming took."""

    model: str
    version: str
    pipeline: Any
    features: tuple[str, ...]
    size_bytes: int
    reference: Mapping[str, Any] = field(default_factory=dict)
    load_s: float = 0.0

    def predict(self, rows: pa.RecordBatch | pa.Table) -> Floats:
        """The probability of the positive class, a float64 a row. Rows may have more columns than the features.
        Raises UserError when one is missing."""
        from headrace.loop.training import predict

        if missing := [name for name in self.features if name not in rows.schema.names]:
            raise UserError(f"{self.model} version {self.version} reads {', '.join(missing)}, which the rows lack; "
                            f"they have {', '.join(rows.schema.names)}")
        made: Floats = predict(self.pipeline, rows.select(list(self.features)))
        return made


def save(pipeline: Any, folder: Path, example: pa.Table, reference: Mapping[str, Any], **ids: str) -> None:
    """The files of an MLflow model: `example` is a few rows of the features, `ids` are those of MLflow's Model.

    With requirements that are said nothing is inferred: 0.3 s instead of 30 to 50.
    """
    from mlflow.exceptions import MlflowException

    mlflow = _flavors()

    try:
        mlflow.sklearn.save_model(
            pipeline, folder, mlflow_model=mlflow.models.Model(**ids), signature=signature(example.schema),
            pip_requirements=[f"{name}=={installed(name)}" for name in REQUIREMENTS],
            serialization_format="skops", skops_trusted_types=list(TRUSTED), pyfunc_predict_fn="predict_proba")
    except MlflowException as error:
        raise UserError(f"the pipeline cannot be kept: {error.message.splitlines()[0]}",
                        hint="its steps must be scikit-learn's own; functions and classes of yours cannot be loaded "
                             "safely elsewhere") from error
    rows = example.slice(0, 5)
    (folder / REFERENCE).write_text(json.dumps({"reference": dict(reference), "example": _hex(rows)}))


def load(folder: Path, model: str, version: str) -> Loaded:
    """The model in a folder, after one prediction. Raises UserError for what we did not write or do not trust."""
    from ruamel.yaml import YAML

    started = time.perf_counter()
    said = YAML(typ="safe").load(folder / "MLmodel")  # MLflow's own reader would import its model servers: seconds
    flavor = said.get("flavors", {}).get("sklearn", {})
    names = [each.get("name") for each in json.loads((said.get("signature") or {}).get("inputs") or "[]")]
    if flavor.get("serialization_format") != "skops" or not names or None in names:
        raise UserError(f"{model} version {version} is not a scikit-learn pipeline in skops' format with a signature",
                        hint="a model in pickle's format runs code when it is loaded, and is refused; log it with "
                             "serialization_format=\"skops\" and a signature")
    pipeline = _trusted(folder / flavor["pickled_model"], model, version)
    note = json.loads((folder / REFERENCE).read_text()) if (folder / REFERENCE).exists() else {}
    loaded = Loaded(model, version, pipeline, tuple(names), _size(folder), note.get("reference", {}))
    if "example" in note:
        loaded.predict(pa.ipc.open_stream(bytes.fromhex(note["example"])).read_all())
    return Loaded(model, version, pipeline, loaded.features, loaded.size_bytes, loaded.reference,
                  time.perf_counter() - started)


def _flavors() -> Any:
    """MLflow with its scikit-learn part, whose import warns of MLflow's own type hints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.models
        import mlflow.pyfunc.model
        import mlflow.sklearn
    return mlflow


def signature(schema: pa.Schema) -> ModelSignature:
    """The columns of a schema as a model's inputs, its output the probabilities of both classes."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = [
        ColSpec(next((name for fits, name in NAMES if fits(each.type)), "string"), each.name, required=False)
        for each in schema]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))


def _trusted(file: Path, model: str, version: str) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.load(file, trusted=list(TRUSTED))
    except UntrustedTypesFoundException as error:
        raise UserError(f"{model} version {version} holds types that are not trusted: {str(error).splitlines()[0]}",
                        hint="only pipelines of scikit-learn's own steps are loaded") from error


def _hex(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return str(sink.getvalue().to_pybytes().hex())


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())

