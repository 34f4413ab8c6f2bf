"""Write what this folder holds: ``locked.txt``, ``locked-build.txt`` and ``sbom.cdx.json``. Called by ``make supply``.

Versions come from ``constraints.txt``; hashes from the package index. The lock is for the CPU build of torch: on Linux
the index itself has the build for NVIDIA GPUs, whose hash and whose libraries are left out here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
CPU_TORCH = {  # wheels of https://download.pytorch.org/whl/cpu, by version
    "2.13.0": ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",),  # CPython 3.11, Linux x86_64
}
OF_GPUS = re.compile(r"(cuda|nvidia)-|triton==")
HEAD = "# Written by make supply: every package of constraints.txt with its hashes, torch as its CPU build on Linux.\n"


def compiled() -> str:
    """All packages of the project and of its development, with markers and hashes."""
    command = "uv pip compile pyproject.toml --extra dev --constraint constraints.txt --generate-hashes --universal"
    more = ["--python-version", "3.11.5", "--no-annotate", "--no-header", "--quiet"]
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run([str(uv), *command.split()[1:], *more], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def packages(text: str) -> dict[str, str]:
    """What stands for each package, by name."""
    parts = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {part.split("==")[0]: part for part in parts if "==" in part}


def torch_for_cpus(part: str) -> str:
    """Without the hashes of the index's Linux builds, with those of the CPU builds."""
    version = re.match(r"torch==(\S+)", part)
    if version is None or version[1] not in CPU_TORCH:
        raise SystemExit(f"torch: {part.split()[0]}; expected one of {sorted(CPU_TORCH)}, whose CPU wheels are known")
    lines = [f"    --hash=sha256:{digest}" for digest in CPU_TORCH[version[1]]]
    return f"torch=={version[1]} \\\n" + " \\\n".join(lines) + "\n"


def sbom() -> str:
    """A CycloneDX list of what ``pip install doorward`` brings with the versions of ``constraints.txt``."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", "constraints.txt", "."]
        subprocess.run(install, cwd=ROOT, check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "doorward", "pip"], check=True)
        options = [
            "environment",
            "--pyproject",
            "pyproject.toml",
            "--mc-type",
            "library",
            "--output-reproducible",
            "--of",
            "JSON",
        ]
        done = subprocess.run([str(tool), *options, python], cwd=ROOT, check=True, capture_output=True, text=True)
    return json.dumps(json.loads(done.stdout), indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write the three files."""
    found = {name: part for name, part in packages(compiled()).items() if not OF_GPUS.match(part)}
    found["torch"] = torch_for_cpus(found["torch"])
    (HERE / "locked.txt").write_text(HEAD + "".join(found.values()))
    (HERE / "locked-build.txt").write_text(HEAD.replace("every package", "build tools") + found["setuptools"])
    (HERE / "sbom.cdx.json").write_text(sbom())


if __name__ == "__main__":
    main()
