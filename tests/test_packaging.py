"""What is installed: the wheel's files and metadata, the extras, and what starting costs."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import cs336lm
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text())["project"]
WHEEL = "cs336lm-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl"
INFO = "cs336lm-0.1.0.dist-info/"

# What `pip install cs336lm` brings. It grows only by a decision, and never by one of an extra's.
BASE = {"einops", "jinja2", "jaxtyping", "matplotlib", "numpy", "rich", "tomli-w", "torch"}
EXTRAS = {"hf", "gguf", "serve", "eval", "ray", "tensorboard", "wandb", "bench", "docs"}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0]


@pytest.fixture
def check_wheel(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    import check_wheel

    yield check_wheel
    del sys.modules["check_wheel"]


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """The metadata that maturin writes, as in a wheel."""
    if shutil.which("maturin", path=Path(sys.executable).parent) is None:
        pytest.skip("needs maturin")
    folder = tmp_path_factory.mktemp("metadata")
    command = [str(Path(sys.executable).with_name("maturin")), "pep517", "write-dist-info"]
    command += ["--metadata-directory", str(folder), "--interpreter", sys.executable]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*/METADATA")
    return file.read_text()


def write_wheel(path, metadata, files, *, info=("RECORD", "WHEEL", "licenses/LICENSE")):
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*files, *(INFO + name for name in info)):
            archive.writestr(name, "")
        archive.writestr(f"{INFO}METADATA", metadata)
        archive.writestr(
            f"{INFO}entry_points.txt", "[console_scripts]\ncs336lm=cs336lm.cli.main:main"
        )
    return path


def test_a_whole_wheel_has_no_fault(check_wheel, metadata, tmp_path):
    files = check_wheel.package_files()
    assert {"cs336lm/py.typed", "cs336lm/_bpe.pyi", "cs336lm/cli/main.py"} <= files
    assert not [name for name in files if "__pycache__" in name or name.endswith(".so")]
    wheel = write_wheel(tmp_path / WHEEL, metadata, [*files, "cs336lm/_bpe.abi3.so"])
    assert check_wheel.faults(wheel, files, PYPROJECT) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda files: files.remove("cs336lm/py.typed"), "cs336lm/py.typed is missing"),
        (lambda files: files.append("tests/test_x.py"), "tests/test_x.py does not belong"),
        (lambda files: files.append("cs336lm/a.pyc"), "cs336lm/a.pyc does not belong"),
        (lambda files: files.remove("cs336lm/_bpe.abi3.so"), "it holds 0 compiled cores, not one"),
    ],
)
def test_a_file_too_few_or_too_many_is_found(check_wheel, metadata, tmp_path, change, fault):
    files = [*check_wheel.package_files(), "cs336lm/_bpe.abi3.so"]
    change(files)
    wheel = write_wheel(tmp_path / WHEEL, metadata, files)
    assert check_wheel.faults(wheel, check_wheel.package_files(), PYPROJECT) == [fault]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (WHEEL.replace("cp311-abi3", "cp312-cp312"), "its tag is cp312-cp312, not cp311-abi3"),
        (WHEEL.replace("manylinux_2_34", "linux"), "its platform is linux_x86_64, which no index"),
    ],
)
def test_a_wrong_tag_is_found(check_wheel, metadata, tmp_path, name, fault):
    wheel = write_wheel(tmp_path / name, metadata, ["cs336lm/_bpe.abi3.so"])
    (found,) = check_wheel.faults(wheel, [], PYPROJECT)
    assert found.startswith(fault)


def test_wrong_dependencies_are_found(check_wheel, metadata, tmp_path):
    without = metadata.replace("Requires-Dist: numpy>=2.0\n", "")
    wheel = write_wheel(tmp_path / WHEEL, without, ["cs336lm/_bpe.abi3.so"])
    (found,) = check_wheel.faults(wheel, [], PYPROJECT)
    assert "dependencies" in found


def test_what_pip_is_told(metadata):
    said = Parser().parsestr(metadata)
    required = said.get_all("Requires-Dist")
    assert {name_of(line) for line in required if "extra ==" not in line} == BASE
    assert said.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])
    assert said["Version"] == cs336lm.__version__
    assert said["License-Expression"] == "MIT"
    assert said.get_payload().startswith("# cs336lm")


def test_every_extra_is_there_with_its_reason():
    assert set(PROJECT["optional-dependencies"]) >= EXTRAS
    lines = PYPROJECT.read_text().partition("[project.optional-dependencies]")[2]
    lines = lines.partition("\n[")[0].splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[\w-]+ = \[", line):
            assert "#" in line or lines[number - 1].startswith("#"), f"say what for: {line}"


def test_an_extra_that_an_error_names_exists():
    """Each ``pip install 'cs336lm[...]'`` in the package and in the documents."""
    named = set()
    pages = [*(ROOT / "python").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    for page in pages:
        for extras in re.findall(r"cs336lm\[([\w,-]+)\]", page.read_text("utf-8")):
            named |= set(extras.split(","))
    assert len(named) > 5
    assert named <= set(PROJECT["optional-dependencies"])


def test_one_version():
    crate = tomllib.loads((ROOT / "crates" / "bpe" / "Cargo.toml").read_text())
    assert crate["package"]["version"] == cs336lm.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cs336lm.__version__
    assert citation["license"] == PROJECT["license"] == crate["package"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train-bpe", "--help"], ["tokenize", "--help"], ["nothing"]]
)
def test_starting_loads_python_alone(arguments):
    """No package but this one: what is not imported takes no time."""
    script = """
import sys
before = set(sys.modules)
from cs336lm.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
new = {name.split(".")[0] for name in set(sys.modules) - before}
sys.exit(" ".join(new - sys.stdlib_module_names - {"cs336lm"}) or 0)
"""
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
