"""Changes a function or a constant of the package as it is imported, found by its qualified name.

No source is quoted and no file is touched: a mutant outlives a rewrite of the lines around it, and the processes that a
test starts have it as well. A name that is gone is an error of the mutant.
"""

import ast
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType

VARIABLE = "PORTRAIT_TESTS_MUTANT"
"""The environment's name for the mutant of a process. Its value is the mutant's index in `mutants.MUTANTS`."""


class Gone(LookupError):
    """What a mutant changes is not there: it has moved, or is called otherwise."""


@dataclass(frozen=True)
class Change:
    """What is done to one place of the package."""

    place: str
    """`module:CONSTANT`, `module:function` or `module:Class.method`."""
    made: Callable[[ast.AST], int]
    """Changes the place's node; how many changes that were."""

    @property
    def module(self) -> str:
        return self.place.partition(":")[0]

    def applied(self, source: bytes) -> ast.Module:
        """The module with the change.

        Raises:
            Gone: there is no such place, or nothing in it to change.
        """
        tree = ast.parse(source)
        if not self.made(find(tree, self.place.partition(":")[2].split("."))):
            raise Gone(f"{self.place}: there is nothing to change")
        return ast.fix_missing_locations(tree)


def find(tree: ast.AST, names: Sequence[str]) -> ast.AST:
    """The node that a qualified name leads to: a definition, or an assignment."""
    for node in ast.iter_child_nodes(tree):
        if names[0] in defined(node):
            return find(node, names[1:]) if len(names) > 1 else node
    raise Gone(f"there is no {names[0]}")


def defined(node: ast.AST) -> list[str]:
    """The names that a statement of a module or class defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        case ast.AnnAssign(target=ast.Name()):
            return [node.target.id]
    return []


def constant(place: str, value: str) -> Change:
    """The constant has another value: an expression in Python."""

    def made(node: ast.AST) -> int:
        assert isinstance(node, ast.Assign | ast.AnnAssign)
        other, name = ast.parse(value, mode="eval").body, place.rpartition(":")[2]
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            names = [each.id for each in target.elts if isinstance(each, ast.Name)]
            node.value.elts[names.index(name)] = other
        else:
            node.value = other
        return 1

    return Change(place, made)


def body(place: str, text: str) -> Change:
    """The function does this instead."""

    def made(node: ast.AST) -> int:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        node.body = ast.parse(text).body
        return 1

    return Change(place, made)


def without_raise(place: str) -> Change:
    """The function refuses nothing: each `raise` in it is left out."""
    return Change(place, lambda node: _replaced(node, lambda each: isinstance(each, ast.Raise)))


def without_call(place: str, called: str) -> Change:
    """The function leaves a call out, which stands as a statement of its own."""

    def is_call(node: ast.stmt) -> bool:
        value = node.value if isinstance(node, ast.Expr) else None
        value = value.value if isinstance(value, ast.Await) else value
        return isinstance(value, ast.Call) and _name(value.func) == called

    return Change(place, lambda node: _replaced(node, is_call))


def never(place: str, named: str) -> Change:
    """Conditions in which a name occurs are never true."""

    def made(node: ast.AST) -> int:
        found = 0
        for each in ast.walk(node):
            if isinstance(each, ast.If | ast.While | ast.IfExp) and named in map(_name, ast.walk(each.test)):
                each.test, found = ast.Constant(value=False), found + 1
        return found

    return Change(place, made)


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _replaced(node: ast.AST, wanted: Callable[[ast.stmt], bool]) -> int:
    """Put `pass` in the place of statements."""
    found = 0
    for parent in ast.walk(node):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(parent, block, None)
            for index, statement in enumerate(statements if isinstance(statements, list) else []):
                if wanted(statement):
                    statements[index], found = ast.copy_location(ast.Pass(), statement), found + 1
    return found


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, change: Change) -> None:
        super().__init__(name, path)
        self._change = change

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(self._change.applied(self.get_data(path)), path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, change: Change) -> None:
        self._change = change

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if fullname != self._change.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self._change)
        return spec


def install() -> None:
    """Make the change that the environment names in this process."""
    if index := os.environ.get(VARIABLE):
        from tests.faults.mutants import MUTANTS

        sys.meta_path.insert(0, _Finder(MUTANTS[int(index)].change))
