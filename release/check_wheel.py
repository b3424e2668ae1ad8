"""What a wheel must be before anybody installs it: ``make wheel`` asks, file by file.

    python release/check_wheel.py dist/cs336lm-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl

It holds the package as git knows it, the compiled core, and its own description: nothing that lay
about beside them. One wheel serves every Python from 3.11 on (abi3), on every Linux whose C library
is as new as the tag says. At the end it is installed into an empty folder, and answers.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTION = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
PLATFORM = r"manylinux_\d+_\d+_\w+|musllinux_\d+_\d+_\w+|macosx_\w+|win_\w+"


def package_files(root: Path = ROOT) -> set[str]:
    """The package's files as the wheel names them, without the compiled core."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "python/cs336lm"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    there = (name for name in listed.stdout.splitlines() if (root / name).exists())
    return {name.removeprefix("python/") for name in there}


def faults(wheel: Path, expected: Iterable[str], pyproject: Path) -> list[str]:
    """What is wrong with a wheel that should hold ``expected`` and the core; a line each."""
    project = tomllib.loads(pyproject.read_text())["project"]
    found = []
    parts = wheel.stem.split("-")
    if parts[2:4] != ["cp311", "abi3"]:
        found.append(f"its tag is {'-'.join(parts[2:4])}, not cp311-abi3: one wheel is for all")
    if not re.fullmatch(rf"({PLATFORM})(\.({PLATFORM}))*", parts[-1]):
        found.append(f"its platform is {parts[-1]}, which no index takes")
    folder = f"{parts[0]}-{parts[1]}.dist-info/"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        metadata = Parser().parsestr(archive.read(f"{folder}METADATA").decode())
        scripts = archive.read(f"{folder}entry_points.txt").decode()
    cores = [name for name in names if re.fullmatch(r"cs336lm/_bpe\.(abi3\.so|pyd)", name)]
    if len(cores) != 1:
        found.append(f"it holds {len(cores)} compiled cores, not one")
    described = {folder + name for name in DESCRIPTION}
    present = {name for name in names if not name.startswith(f"{folder}sboms/")} - set(cores)
    found += [f"{name} is missing" for name in sorted({*expected, *described} - present)]
    found += [f"{name} does not belong" for name in sorted(present - {*expected, *described})]
    wanted = {*project["dependencies"]}
    for extra, needs in project["optional-dependencies"].items():
        wanted |= {f"{need} ; extra == '{extra}'" for need in needs}
    if wanted != set(metadata.get_all("Requires-Dist", [])):
        found.append("its dependencies are not those of pyproject.toml")
    if metadata["Requires-Python"] != project["requires-python"]:
        found.append(f"it asks for Python {metadata['Requires-Python']}")
    if "cs336lm=cs336lm.cli.main:main" not in scripts.replace(" ", ""):
        found.append("it brings no command cs336lm")
    return found


def answers(wheel: Path) -> str:
    """What ``cs336lm --version`` says of a wheel installed by itself; its Rust core is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder]
        subprocess.run([sys.executable, *install, str(wheel)], check=True)
        # -S: no other cs336lm is found, an editable one for instance.
        code = f"import sys; sys.path.insert(0, {folder!r}); import cs336lm._bpe\n"
        code += "from cs336lm.cli.main import main; sys.exit(main(['--version']))"
        command = [sys.executable, "-I", "-S", "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Checks each wheel named; returns 1 if one has a fault."""
    wheels = [Path(name) for name in sys.argv[1:]]
    if not wheels:
        sys.exit("usage: python release/check_wheel.py WHEEL...")
    bad = 0
    for wheel in wheels:
        found = faults(wheel, package_files(), ROOT / "pyproject.toml")
        for fault in found:
            print(f"{wheel.name}: {fault}", file=sys.stderr)
        bad += bool(found)
        if not found:
            print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {answers(wheel)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
