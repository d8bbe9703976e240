"""``python -m outlast``: runs the program that came in the wheel, in this process's place."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def program() -> str:
    """The path of the program: the scripts folder of wherever this package was installed to."""
    name = "outlast.exe" if os.name == "nt" else "outlast"
    user = sysconfig.get_preferred_scheme("user")
    for folder in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user)):
        if (path := Path(folder) / name).is_file():
            return str(path)
    below = Path(__file__).resolve().parents[1] / "bin" / name  # pip install --target
    if below.is_file():
        return str(below)
    cure = "To do: python -m pip install --force-reinstall outlast"
    sys.exit(f"outlast: {name} is not in {sysconfig.get_path('scripts')}.\n{cure}")


def main() -> None:
    """Runs it with the arguments it was given; a kernel looks for its child in this environment."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["kernel"] and "--prefix" not in arguments:
        arguments[1:1] = ["--prefix", sys.prefix]
    path = program()
    if os.name != "nt":
        os.execv(path, [path, *arguments])
    sys.exit(subprocess.call([path, *arguments]))  # Windows cannot replace a process


main()
