"""Data flows one way: no import and no ``use`` goes against the order of the rooms or in circles.

The order is the one of ``docs/architecture.md``. Every import is read, those inside functions and
under ``TYPE_CHECKING`` too: what a module needs to be understood must stand above it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "cs336lm"
CRATE = ROOT / "crates" / "bpe" / "src"

# A room may use itself and those before it.
PYTHON_ROOMS = [
    *("text", "data", "model", "optim", "training", "generation", "evaluation"),
    *("experiments", "exchange", "serving", "cli"),
]
# Below all rooms: what everybody may use. Above all: the front page, which names everything.
PYTHON_GROUND = {"errors", "files", "json_files", "lazy", "_bpe"}
PYTHON_FRONT = {"__init__", "__main__", "moved"}

RUST_ROOMS = ["store", "text", "vocab", "encode", "files", "train", "formats", "python"]
RUST_GROUND = {"error", "progress", "workers", "lib"}

MODULE_NAME = r"cs336lm(\.\w+)+"  # in a string: what import_module is given


# Python


def python_modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted names below the package (``""`` is the package itself) and their files."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def python_imports(path: Path, known: set[str]) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, by their names below it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; write it from cs336lm on"
            for alias in node.names:
                within = f"{node.module}.{alias.name}".removeprefix("cs336lm").lstrip(".")
                is_module = node.module is not None and within in known
                found.add(f"{node.module}.{alias.name}" if is_module else str(node.module))
        elif isinstance(node, ast.Constant) and re.fullmatch(MODULE_NAME, str(node.value)):
            found.add(node.value)
    ours = {name for name in found if name.split(".")[0] == "cs336lm"}
    return {name.removeprefix("cs336lm").lstrip(".") for name in ours}


def python_faults(package: Path = PACKAGE) -> list[str]:
    """What goes against the order, stands in no room, or closes a circle."""
    modules = python_modules(package)
    graph = {name: python_imports(path, set(modules)) for name, path in modules.items()}
    faults = []
    for name, imports in graph.items():
        room = name.split(".")[0] or "__init__"
        if room in PYTHON_FRONT:
            continue
        if room not in PYTHON_ROOMS and room not in PYTHON_GROUND:
            faults.append(f"{name} stands in no room")
            continue
        for used in sorted(imports):
            other = used.split(".")[0]
            if used and not goes_down(room, other, PYTHON_ROOMS, PYTHON_GROUND):
                faults.append(f"{name} uses {used}")
    front = {name for name in graph if (name.split(".")[0] or "__init__") in PYTHON_FRONT}
    inner = {name: imports & graph.keys() - front for name, imports in graph.items()}
    faults += [" -> ".join(circle) for circle in circles(inner)]
    return faults


def goes_down(room: str, other: str, order: list[str], ground: set[str]) -> bool:
    """Whether ``room`` may use ``other``."""
    if other in ground:
        return True
    if other not in order:
        return False
    return room not in ground and order.index(other) <= order.index(room)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One circle for each module that reaches itself first through a later one."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph.get(name, set()) - {name}):
                visit(other, [*path, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


# Rust


def rust_modules() -> dict[tuple[str, ...], Path]:
    """Module paths below ``crate`` and their files; files of tests are left out."""
    found = {}
    for path in sorted(CRATE.rglob("*.rs")):
        parts = path.relative_to(CRATE).with_suffix("").parts
        if parts[-1].endswith("tests"):
            continue
        found[parts[:-1] if parts[-1] in ("mod", "lib") else parts] = path
    return found


def rust_code(path: Path) -> str:
    """A file without comments, strings and its own module of tests."""
    code = path.read_text(encoding="utf-8")
    code = re.sub(r'//[^\n]*|"(?:\\.|[^"\\])*"', " ", code)
    return re.sub(r"#\[cfg\(test\)\]\s*(pub(\(crate\))? )?mod \w+ \{.*", " ", code, flags=re.DOTALL)


def rust_uses(module: tuple[str, ...], code: str, modules: set[tuple[str, ...]]) -> set[tuple]:
    """The modules of the crate that a file names, by ``use`` or in the middle of an expression."""
    found = set()
    for statement in re.findall(r"\buse\s+([^;]+);", code):
        for names in expanded("".join(statement.split())):
            found.add(resolve(names.split("::"), module, modules))
    code = re.sub(r"\buse\s+[^;]+;", " ", code)
    for names in re.findall(r"\b(?:crate|super)(?:::\w+)+", code):
        found.add(resolve(names.split("::"), module, modules))
    for name in re.findall(r"\b(\w+)::\w+", code):  # a module declared here
        if (*module, name) in modules:
            found.add((*module, name))
    return found - {None, module}


def expanded(tree: str) -> Iterator[str]:
    """``a::{b,c::{d,e}}`` -> ``a::b``, ``a::c::d``, ``a::c::e``."""
    head, brace, rest = tree.partition("{")
    if not brace:
        yield re.sub(r"as\w+$", "", tree) if " as " in tree else tree
        return
    depth, start = 0, 0
    inner = rest[: rest.rindex("}")]
    for at, letter in enumerate([*inner, ","]):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            if inner[start:at]:
                yield from (head + part for part in expanded(inner[start:at]))
            start = at + 1


def resolve(
    names: list[str], module: tuple[str, ...], modules: set[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """The module that a path leads to, or None if that is not one of this crate."""
    if names[0] == "crate":
        path = names[1:]
    elif names[0] in ("super", "self"):
        ups = sum(name == "super" for name in names)
        path = [*module[: len(module) - ups], *names[ups + (names[0] == "self") :]]
    elif (*module, names[0]) in modules:
        path = [*module, *names]
    else:
        return None
    while path and tuple(path) not in modules:
        path = path[:-1]
    return tuple(path) or None


def test_python_imports_go_one_way() -> None:
    assert python_faults() == []


def test_rust_uses_go_one_way() -> None:
    modules = rust_modules()
    graph = {m: rust_uses(m, rust_code(path), set(modules)) for m, path in modules.items()}
    faults = []
    for module, uses in graph.items():
        room = module[0] if module else "lib"
        if room == "lib":
            continue
        if room not in RUST_ROOMS and room not in RUST_GROUND:
            faults.append(f"{'::'.join(module)} stands in no room")
        for used in sorted(uses):
            if not goes_down(room, used[0], RUST_ROOMS, RUST_GROUND):
                faults.append(f"{'::'.join(module)} uses {'::'.join(used)}")
    named = {"::".join(m): {"::".join(u) for u in uses} for m, uses in graph.items() if m}
    faults += [" -> ".join(circle) for circle in circles(named)]
    assert faults == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("from cs336lm.cli.main import main", "model.layer uses cli.main"),
        ("def f():\n    from cs336lm.training import loop", "model.layer uses training.loop"),
        ("import cs336lm.generation.engine", "model.layer uses generation.engine"),
        ("x = import_module('cs336lm.serving.app')", "model.layer uses serving.app"),
        ("from cs336lm.model.head import x", "model.head -> model.layer -> model.head"),
        ("from cs336lm.odds import ends", "model.layer uses odds"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, line: str, fault: str) -> None:
    for name, text in {
        "__init__.py": "",
        "odds.py": "",
        "model/__init__.py": "",
        "model/layer.py": line,
        "model/head.py": "from cs336lm.model.layer import y",
        "training/__init__.py": "",
        "training/loop.py": "",
        "text/__init__.py": "from cs336lm.errors import UsageError",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert fault in python_faults(tmp_path)
    assert "odds stands in no room" in python_faults(tmp_path)


def test_the_architecture_page_names_every_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = [name.split(".") for name in python_modules()]
    parts = {part for name in files for part in name if name[0] != "cli"}
    parts |= {part for module in rust_modules() for part in module}
    assert {part for part in parts if not re.search(rf"\b{part}\b", page)} == set()


def test_files_stay_short() -> None:
    """Over 600 lines a file holds more than one idea."""
    sources = [*PACKAGE.rglob("*.py"), *ROOT.glob("crates/**/*.rs"), *ROOT.glob("*s/**/*.py")]
    lengths = {str(f.relative_to(ROOT)): len(f.read_text("utf-8").splitlines()) for f in sources}
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}
