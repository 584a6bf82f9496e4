"""Finds and loads pipelines: every folder `remote_scripts/NAME/` with a pipeline.yaml is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import fleet
from fleet.errors import InputError
from fleet.inventory.yaml_file import read_yaml
from fleet.model.base import nearest, parse
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline

AGENT = "fleet_host.py"


def own_scripts() -> tuple[Path, ...]:
    """Return where this version of fleet keeps its own remote_scripts: inside the package, or beside it in a checkout."""
    package = Path(fleet.__file__).resolve().parent
    return (package / "remote_scripts", package.parent / "remote_scripts")


def default_roots() -> tuple[Path, ...]:
    """Return the folders searched for pipelines: $FLEET_REMOTE_SCRIPTS, ./remote_scripts, fleet's own."""
    extra = os.environ.get("FLEET_REMOTE_SCRIPTS", "")
    roots = [Path(part).expanduser() for part in extra.split(os.pathsep) if part]
    return tuple(dict.fromkeys([*roots, Path("remote_scripts").resolve(), *own_scripts()]))


class Pipelines:
    """The pipelines below `roots`; the first root that has a name wins."""

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        self.roots = tuple(roots) if roots is not None else default_roots()
        self._loaded: dict[str, Pipeline] = {}

    def names(self) -> tuple[str, ...]:
        """Return all pipeline names, sorted."""
        found = {path.parent.name for root in self.roots if root.is_dir() for path in root.glob("*/pipeline.yaml")}
        return tuple(sorted(found))

    def folder(self, name: str) -> Path:
        """Return the folder of pipeline `name`, or raise InputError with the nearest known name."""
        if is_name(name):
            for root in self.roots:
                if (root / name / "pipeline.yaml").is_file():
                    return root / name
        near = nearest(name, list(self.names()))
        known = f"did you mean {near!r}?" if near else f"known: {', '.join(self.names()) or 'none'}"
        raise InputError(
            f"unknown pipeline {visible(name, 80)!r}, {known}",
            hint=f"add remote_scripts/NAME/pipeline.yaml; searched {', '.join(map(str, self.roots))}",
        )

    def get(self, name: str) -> Pipeline:
        """Return pipeline `name`; its `reference` is absolute, and what it includes is in `ship`. Raises InputError."""
        if name not in self._loaded:
            folder = self.folder(name)
            source = folder / "pipeline.yaml"
            pipeline = parse(Pipeline, read_yaml(source), str(source))
            if pipeline.name != name:
                raise InputError(f"{source}: name: is {pipeline.name!r} but the folder is {name!r}")
            if pipeline.reference is not None:
                reference = (folder / pipeline.reference.expanduser()).resolve()
                pipeline = pipeline.model_copy(update={"reference": reference})
            self._loaded[name] = self._with_included(pipeline, folder) if pipeline.include else pipeline
        return self._loaded[name]

    def _with_included(self, pipeline: Pipeline, folder: Path) -> Pipeline:
        """Add the files that the included pipelines ship themselves; each name must stand for one file only."""
        source, shipped, folders = folder / "pipeline.yaml", list(pipeline.ship), []
        for other in map(str, pipeline.include):
            where = self.folder(other)
            names = parse(Pipeline, read_yaml(where / "pipeline.yaml"), str(where / "pipeline.yaml")).ship
            if not names or other == pipeline.name:
                raise InputError(f"{source}: include: {other} has no files for it", hint="include a pipeline that has `ship`")
            for name in names:
                if name in shipped or (folder / name).exists():
                    raise InputError(f"{source}: include: {other} ships {name}, and so does another", hint=f"rename {name}")
            shipped += names
            folders.append(where)
        return pipeline.model_copy(update={"ship": tuple(shipped), "include": tuple(folders)})


def agent_source() -> bytes:
    """Return the host agent that belongs to this version of fleet, the one file that is shipped to every host."""
    roots = dict.fromkeys([*own_scripts(), *default_roots()])
    for root in roots:
        path = root / AGENT
        if path.is_file():
            return path.read_bytes()
    raise InputError(f"{AGENT} is not there; searched {', '.join(map(str, roots))}", hint="reinstall fleet")
