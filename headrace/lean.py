"""Starting light."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("left out for now", name=name)


def leave_pandas_out() -> None:
    """Keep pyarrow from importing pandas, which it does at its first array wherever pandas is installed: 35 MB and a
    second of start-up that a flow without Great Expectations never uses. pyarrow asks once; whoever needs pandas later
    (`to_pandas`, Great Expectations) still gets it.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)


def numbers_of(arrow: pa.DataType) -> np.dtype[Any]:
    """numpy's type of an Arrow type of numbers. Arrow's own `to_pandas_dtype` says the same, and imports pandas."""
    import numpy as np
    from pyarrow import types

    kind = "f" if types.is_floating(arrow) else "u" if types.is_unsigned_integer(arrow) else "i"
    return np.dtype(f"{kind}{arrow.bit_width // 8}")
