"""Words for what an environment raises, in one line."""

from __future__ import annotations

from gymnasium import error

from legato.errors import LegatoError

# What to install when an environment's dependency is missing, by the package Gymnasium asks for.
_EXTRAS = {"mujoco": "mujoco", "Box2D": "box2d", "box2d": "box2d", "pygame": "classic"}


def missing_package(name: str, problem: Exception) -> LegatoError:
    """The error for a package that an environment needs: what to install, or what was looked for."""
    if isinstance(problem, ModuleNotFoundError) and problem.name == "gymnasium_robotics":
        return LegatoError(f"environment '{name}' needs a package that is missing: pip install 'legato[robotics]'")
    module = name.partition(":")[0]
    if ":" in name and isinstance(problem, ModuleNotFoundError) and problem.name == module:
        where = f"there is no {module}.py in this folder, and no installed module of this name"
        return LegatoError(f"environment '{name}': {where}")
    absent = isinstance(problem, error.DependencyNotInstalled)  # else it has moved, or an import of its own failed
    extra = next((e for package, e in _EXTRAS.items() if absent and package in str(problem)), None)
    advice = f"pip install 'legato[{extra}]'" if extra else str(problem).splitlines()[0]
    return LegatoError(f"environment '{name}' needs a package that is missing: {advice}")


def in_one_line(problem: Exception) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())
