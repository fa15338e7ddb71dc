"""Raw text that every machine with the requirements has: the standard library and the installed packages.

`stdlib` gives the sources of the standard library (code); `packages` gives documentation (prose): the language
reference that pydoc carries, package descriptions, the docstrings of modules that are documented at length. Vendored
copies, code tables and families of models make real near-duplicates. Files come in the order of a hash of their names,
so that any limit takes a sample of all of them, the same one on the same machine.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

from xxhash import xxh3_64_intdigest

from alignment.corpus import readers
from alignment.corpus.documents import Document

SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "pydoc_data", "__pycache__"}
DOCUMENTED = 0.25  # share of a module inside triple quotes from which parsing it is worth the time
HEADED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documents(name: Literal["stdlib", "packages"], limit_bytes: int | None = None) -> Iterator[Document]:
    """Yield the documents of one installed origin, up to a limit."""
    return readers.first(_stdlib() if name == "stdlib" else _packages(), limit_bytes)


def digest() -> str:
    """Name what is installed here (hex): Python's version and those of all packages."""
    packages = sorted(f"{package.name}=={package.version}" for package in metadata.distributions())
    return hashlib.sha256("\n".join([platform.python_version(), *packages]).encode()).hexdigest()


def _stdlib() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    modules = (path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts))
    for name, path in _shuffled({f"stdlib/{path.relative_to(root).as_posix()}": path for path in modules}):
        if text := _source(path):
            yield Document(name, text, "code", "en", "stdlib")


def _packages() -> Iterator[Document]:
    for title in sorted(topics):
        yield Document(f"pydoc/{title}", topics[title].strip(), "prose", "en", "packages")
    modules: dict[str, Path] = {}
    packages = {package.name: package for package in metadata.distributions()}  # asking for a name parses a file
    for name, package in sorted(packages.items()):
        if description := str(package.metadata.json.get("description", "")).strip():
            yield Document(f"{name}/METADATA", description, "prose", "en", "packages")
        for file in package.files or ():
            if file.suffix == ".py" and not SKIPPED & set(file.parts):
                modules[f"{name}/{file.as_posix()}"] = Path(str(file.locate()))
    for name, path in _shuffled(modules):
        text = _source(path)
        if sum(map(len, text.split('"""')[1::2])) > DOCUMENTED * len(text) and (prose := docstrings(text)):
            yield Document(name, prose, "prose", "en", "packages")


def _shuffled(modules: dict[str, Path]) -> list[tuple[str, Path]]:
    return sorted(modules.items(), key=lambda module: (xxh3_64_intdigest(module[0].encode()), module[0]))


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # removed since installation, or an old encoding: a sample can do without
        return ""


def docstrings(source: str) -> str:
    """Join a module's docstrings in reading order, each below the name of what it documents."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escape sequences
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates and files for other versions of Python
        return ""
    return "\n\n".join(_sections(tree, ""))


def _sections(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, title: str) -> Iterator[str]:
    if text := ast.get_docstring(node):
        yield f"{title}\n{text}" if title else text
    for inner in node.body:
        if isinstance(inner, HEADED):
            yield from _sections(inner, f"{title}.{inner.name}".lstrip("."))
