"""What MkDocs does beside: the build ends where a public name has no docstring, and intervals are kept on one line.

mkdocstrings leaves out names without a docstring silently. Public is what a module of the reference defines and no
underscore begins. Methods that a base class documents need none of their own, and neither do fields.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parent.parent


def on_pre_build(config: Any) -> None:
    """Called by MkDocs before it reads a page."""
    pages = {page: page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md"))}
    named = re.findall(r"^::: ([\w.]+)$", "\n".join(pages.values()), re.MULTILINE)
    package = griffe.load("legato", search_paths=[ROOT / "src"], resolve_aliases=True)
    problems = [problem for name in named for problem in undocumented(package, name)]
    problems += [f"legato.{name} is not in docs/reference/legato.md" for name in missing(pages)]
    if problems:
        raise PluginError("\n".join(["the reference is not whole:", *problems]))


def on_page_content(html: str, **_: Any) -> str:
    """Called by MkDocs with the page as HTML: `[0.48, 0.49]` is not broken between its numbers."""
    return re.sub(r"\[(-?[\d.]+), (-?[\d.]+)\]", "[\\1,\u00a0\\2]", html)


def undocumented(package: griffe.Object, name: str) -> list[str]:
    """The public names of a module, its exports among them, or the one name itself, that have no docstring."""
    module, found = package[name.removeprefix("legato.")], []
    if not (module.final_target if module.is_alias else module).is_module:  # a name of its own
        return [] if module.has_docstring else [f"{name} has no docstring"]
    for member in module.members.values():
        imported = member.is_alias and member.name not in (module.exports or ())
        if member.name.startswith("_") or imported:
            continue
        thing = member.final_target if member.is_alias else member
        if thing.is_function or thing.is_class:
            found += [] if thing.has_docstring else [f"{thing.path} has no docstring"]
        if thing.is_class:
            found += methods(thing)
    return found


def methods(of: griffe.Class) -> list[str]:
    """The public methods of a class that neither it nor a base explains."""
    explained = {name for base in of.mro() for name, member in base.members.items() if member.has_docstring}
    own = [method for method in of.members.values() if method.is_function and not method.name.startswith("_")]
    return [
        f"{method.path} has no docstring" for method in own if not method.has_docstring | (method.name in explained)
    ]


def missing(pages: dict[Path, str]) -> list[str]:
    """What `legato.__all__` holds and its page does not name."""
    exported: list[str] = []
    for node in ast.parse((ROOT / "src" / "legato" / "__init__.py").read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign | ast.AugAssign):
            exported += ast.literal_eval(node.value)
    page = pages[ROOT / "docs" / "reference" / "legato.md"]
    return [name for name in exported if not name.startswith("_") and not re.search(rf"\b{name}\b", page)]
