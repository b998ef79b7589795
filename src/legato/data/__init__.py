"""What experience is: its shapes, its storage, its samples.

For users: datasets in files, read, written, described, converted, merged and split. These functions load on first use.

    import legato.data

    data = legato.data.load("logs.npz")
    legato.data.split("logs.npz", ("train.npz", "test.npz"))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from legato.data.formats import load, save
    from legato.data.operations import convert, import_logs, merge, split
    from legato.data.report import info

__all__ = ["convert", "import_logs", "info", "load", "merge", "save", "split"]

_MODULES = {"info": "report", "load": "formats", "save": "formats"}  # of the others: operations


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"legato.data.{_MODULES.get(name, 'operations')}"), name)
    raise AttributeError(f"module 'legato.data' has no attribute '{name}'")
