"""Change the code that keeps outputs from being lost, one spot at a time, and see tests fail.

    make mutants
    make mutants ARGS='stages/lib/core/outputs.py'

Each change is a mutant: a statement is removed, a condition is negated, or fewer exceptions are
caught. The quick tests of its module run on it in a copy of the project, of which there are as many
as cores, and stop at the first failure. A mutant that no test notices has survived, and is printed
as file:line with its difference. Exits with 1 unless tests/mutants.txt gives a reason for each
survivor, and for no other mutant.

No ready-made tool fits: mutmut (3.8) skips functions with a decorator, such as `outputs.replacing`;
cosmic-ray (8.7) never removes a statement, and here most are calls that are made for their effect.
"""

import ast
import contextlib
import copy
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
ARGUED = Path(__file__).with_suffix(".txt")
TESTS = {
    "stages/lib/core/outputs.py": "tests/lib/core/test_outputs.py",
    "stages/lib/core/restoring.py": "tests/lib/core/test_restoring.py",
    "stages/lib/core/stage.py": "tests/lib/core/test_stage.py",
    "stages/lib/training/checkpoints.py": "tests/lib/training/test_checkpoints.py",
}
OTHERWISE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMES = {
    "max": "min", "min": "max", "any": "all", "all": "any", "sorted": "list",
    "BaseException": "Exception",
}  # fmt: skip
OPPOSITES = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)


@dataclass
class Mutant:
    module: str
    function: str
    line: int
    source: str
    # Lines that differ, with - or + before them.
    difference: str

    @property
    def name(self) -> str:
        """The name in tests/mutants.txt, which does not depend on the line."""
        return f"{Path(self.module).stem}.{self.function}\n{self.difference}"


def with_fields(node: ast.AST, **fields) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def without_each(items: list) -> Iterator[list]:
    for index in range(len(items)):
        yield items[:index] + items[index + 1 :]


def negated(test: ast.expr) -> Iterator[ast.expr]:
    """`not test`, unless a variant of `test` itself says that already."""
    already = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    already |= isinstance(test, ast.Compare) and isinstance(test.ops[0], OPPOSITES)
    if not already:
        yield ast.UnaryOp(ast.Not(), test)


def of_statement(node: ast.AST) -> Iterator[ast.AST]:
    """Yield replacements for a statement that leave its expressions as they are."""
    match node:
        case (
            ast.Expr(value=ast.Call())
            | ast.Raise()
            | ast.Continue()
            | ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
            | ast.AugAssign()
        ):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield with_fields(node, value=ast.Constant(None))
        case ast.If(test=test) | ast.While(test=test):
            yield from (with_fields(node, test=other) for other in negated(test))
        case ast.For():
            yield with_fields(node, iter=ast.Tuple([], ast.Load()))
        case ast.Try(finalbody=[_, *_]):
            yield with_fields(node, finalbody=[], handlers=node.handlers or [
                ast.ExceptHandler(ast.Name("BaseException"), None, [ast.Raise()])
            ])  # fmt: skip
        case ast.ExceptHandler(body=body) if not isinstance(body[-1], ast.Raise):
            yield with_fields(node, body=[ast.Raise()])


def of_condition(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in place of a condition or a loop within an expression."""
    match node:
        case ast.BoolOp(values=values):
            for rest in without_each(values):
                yield with_fields(node, values=rest) if len(rest) > 1 else rest[0]
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.IfExp(test=test):
            yield from (with_fields(node, test=other) for other in negated(test))
        case ast.comprehension():
            yield with_fields(node, iter=ast.Tuple([], ast.Load()))
            for index, test in enumerate(node.ifs):
                for other in negated(test):
                    yield with_fields(node, ifs=[*node.ifs[:index], other, *node.ifs[index + 1 :]])
        case ast.Compare(ops=[op]) if type(op) in OTHERWISE:
            yield with_fields(node, ops=[OTHERWISE[type(op)]()])


def of_value(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in place of another expression, its parts as they are."""
    match node:
        case ast.BinOp(op=op) if type(op) in OTHERWISE:
            yield with_fields(node, op=OTHERWISE[type(op)]())
        case ast.Set(elts=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            if len(parts) > 1:
                yield from (with_fields(node, elts=rest) for rest in without_each(parts))
        case ast.Call(keywords=keywords):
            for rest, left_out in zip(without_each(keywords), keywords, strict=True):
                # Without a flag, the call is the same or has the opposite flag, another mutant.
                if not isinstance(getattr(left_out.value, "value", None), bool):
                    yield with_fields(node, keywords=rest)
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name])
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value):
            yield ast.Constant(f"XX{value}XX")


def places(node: ast.AST, function: str = "", line: int = 0) -> Iterator[tuple]:
    """Yield each node below `node`, except docstrings, annotations and imports, with its place."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "ctx", "op", "ops"):
            continue
        several = isinstance(value, list)
        for index, child in enumerate(value if several else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            # Python before 3.12 does not know where the parts of an f-string are.
            inside = isinstance(node, (ast.JoinedStr, ast.FormattedValue))
            here = line if inside else getattr(child, "lineno", line)
            whose = child.name if isinstance(child, ast.FunctionDef) else function
            yield node, field, index if several else None, child, whose, here
            yield from places(child, whose, here)


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module that is Python, in order."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    before = ast.unparse(tree).splitlines()
    for parent, field, index, child, function, line in places(tree):
        for other in [*of_statement(child), *of_condition(child), *of_value(child)]:
            if index is None:
                setattr(parent, field, other)
            else:
                getattr(parent, field)[index] = other
            source = ast.unparse(tree)
            if index is None:
                setattr(parent, field, child)
            else:
                getattr(parent, field)[index] = child
            lines = difflib.unified_diff(before, source.splitlines(), n=0, lineterm="")
            changed = [
                row[0] + row[1:].strip()
                for row in lines
                if row[0] in "-+" and not row.startswith(("---", "+++"))
            ]
            yield Mutant(module, function or "<module>", line, source, "\n".join(changed))


def copy_of_the_project(parent: Path) -> Path:
    copied = parent / "project"
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.local")
    for name in ("stages", "commands", "tests"):
        shutil.copytree(ROOT / name, copied / name, ignore=ignored)
    for name in ("pyproject.toml", "dvc.yaml", "params.yaml", "libraries.yaml"):
        shutil.copy(ROOT / name, copied / name)
    return copied


def passes(directory: Path, tests: str, timeout: float) -> bool:
    """Whether tests pass there; a test that hangs does not."""
    process = subprocess.Popen(
        # The test that noticed the last mutant comes first: it often notices the next one, too.
        [sys.executable, "-m", "pytest", "-qx", "--failed-first", tests],
        cwd=directory,
        # A .pyc is known by second and size, and mutants may have both in common.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # Kill the whole group, because tests may have started other processes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def argued() -> dict[str, str]:
    """Reasons for survivors, by their names."""
    reasons = {}
    for entry in ARGUED.read_text(encoding="utf-8").strip().split("\n\n")[1:]:
        lines = entry.splitlines()
        reason = [line for line in lines[1:] if line[0] not in "-+"]
        reasons["\n".join(lines[: len(lines) - len(reason)])] = " ".join(reason)
    return reasons


def survivors_of(
    module: str, directories: list[Path], reasons: dict[str, str]
) -> tuple[int, list[str]]:
    """How many mutants a module has, and the names of those that pass its tests.

    Each of the directories has a copy of the project, and tries one mutant at a time.
    """
    original = (ROOT / module).read_text(encoding="utf-8")
    start = time.monotonic()
    # Write the original as mutants are written: by ast, without comments.
    (directories[0] / module).write_text(ast.unparse(ast.parse(original)), encoding="utf-8")
    if not passes(directories[0], TESTS[module], 300):
        sys.exit(f"{TESTS[module]} fails without a mutant")
    timeout = 10 + 5 * (time.monotonic() - start)
    free: SimpleQueue[Path] = SimpleQueue()
    for directory in directories:
        free.put(directory)

    def survives(mutant: Mutant) -> bool:
        directory = free.get()
        try:
            (directory / module).write_text(mutant.source, encoding="utf-8")
            return passes(directory, TESTS[module], timeout)
        finally:
            free.put(directory)

    all_of_them = list(mutants(module))
    survived = []
    with ThreadPoolExecutor(len(directories)) as pool:
        for mutant, it_does in zip(all_of_them, pool.map(survives, all_of_them), strict=True):
            if it_does:
                survived.append(mutant.name)
                why = reasons.get(mutant.name, "NO TEST NOTICES IT")
                print(f"{module}:{mutant.line} {mutant.name}\n{why}\n", flush=True)
    for directory in directories:
        (directory / module).write_text(original, encoding="utf-8")
    print(
        f"{module}: {len(all_of_them)} tried, {len(all_of_them) - len(survived)} killed, "
        f"{len(survived)} survived, {time.monotonic() - start:.0f} s\n",
        flush=True,
    )
    return len(all_of_them), survived


def main(modules: list[str]) -> int:
    start = time.monotonic()
    reasons = argued()
    tried, survived = 0, []
    with tempfile.TemporaryDirectory() as parent:
        directories = [
            copy_of_the_project(Path(parent, str(number))) for number in range(os.cpu_count() or 1)
        ]
        for module in modules:
            count, names = survivors_of(module, directories, reasons)
            tried += count
            survived += names
    unargued = [name for name in survived if name not in reasons]
    prefixes = tuple(f"{Path(module).stem}." for module in modules)
    outdated = [name for name in reasons if name.startswith(prefixes) and name not in survived]
    for name in outdated:
        print(f"tests/{ARGUED.name} argues for a mutant that is killed or gone: {name}\n")
    print(
        f"{tried} mutants tried, {tried - len(survived)} killed, {len(survived)} survived, "
        f"{len(survived) - len(unargued)} of them argued in tests/{ARGUED.name}; "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if unargued or outdated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TESTS)))
