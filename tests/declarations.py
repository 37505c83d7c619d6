"""What a stage uses, read from its source: rooms, libraries, parameters, paths."""

import ast
import functools
from dataclasses import dataclass, field
from pathlib import Path

from stages.lib.core import paths

ROOT = Path(__file__).parents[1]
LIBRARIES = {"sklearn": "scikit-learn"}  # Distribution by import name, where the two differ.


@dataclass
class Use:
    modules: set[str] = field(default_factory=set)
    libraries: set[str] = field(default_factory=set)
    params: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)


class _Visitor(ast.NodeVisitor):
    def __init__(self) -> None:
        self.use = Use()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._import(f"{node.module}.{alias.name}")

    def _import(self, name: str) -> None:
        top = name.partition(".")[0]
        if top == "stages":
            parts = name.split(".")
            files = ["/".join(parts[:end]) + ".py" for end in (len(parts), len(parts) - 1)]
            self.use.modules |= {path for path in files if (ROOT / path).is_file()}
            if "/".join(parts[:-1]) == "stages/lib/core/paths":
                self._path(parts[-1])
        else:
            self.use.libraries.add(LIBRARIES.get(top, top))
        # Libraries that a library uses through another one.
        implied = {"transformers.AutoTokenizer": "tokenizers", "transformers.Trainer": "accelerate"}
        if name in implied:
            self.use.libraries.add(implied[name])

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) == "params.load":
            self.use.params |= {
                arg.value if isinstance(arg, ast.Constant) else "<stage>" for arg in node.args
            }
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == "paths":
            self._path(node.attr)
        self.generic_visit(node)

    def _path(self, name: str) -> None:
        """Record the use of a constant of stages/lib/core/paths.py."""
        if isinstance(value := getattr(paths, name, None), Path) and value != paths.METRICS:
            self.use.paths.add(str(value))

    def visit_BinOp(self, node: ast.BinOp) -> None:
        # METRICS / "download.json"
        if "METRICS" in ast.unparse(node.left) and isinstance(node.right, ast.Constant):
            self.use.paths.add(f"{paths.METRICS}/{node.right.value}")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        is_path = isinstance(value, str) and f"{value}/".startswith(("data/", "metrics/"))
        if is_path and not any(mark in value for mark in " \n<{"):
            self.use.paths.add(value)


@functools.cache
def of_file(path: str) -> Use:
    visitor = _Visitor()
    if path != "stages/lib/core/paths.py":
        visitor.visit(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    return visitor.use


def rooms(modules: set[str]) -> set[str]:
    """Return the rooms of these modules, except the schema.

    DVC tracks the parameters' values, so a change of the schema alone cannot change a result.
    """
    found = {str(Path(module).parent) for module in modules} - {"stages", "stages/lib"}
    return {"/".join(Path(room).parts[:3]) for room in found} - {"stages/lib/schema"}


def of_stage(name: str, script: str) -> Use:
    """Return what a stage uses, in all the project's modules that its script imports.

    `name` is that of the section in params.yaml that it reads, if it reads one of its own.
    """
    total = Use(modules={script})
    todo = [script]
    while todo:
        path = todo.pop()
        use = of_file(path)
        todo += sorted(use.modules - total.modules)
        total.modules |= use.modules
        total.libraries |= use.libraries
        total.params |= {name if section == "<stage>" else section for section in use.params}
        if not path.startswith("stages/lib/schema/"):  # It checks what it reads, no more.
            total.paths |= use.paths
    return total
