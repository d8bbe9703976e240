"""The C compiler of a wheel's program: ziglang's, which knows every glibc.

Usage: cc.py TRIPLE STUB ARGUMENTS...

NVIDIA's library is opened at run time, so go-nvml links with its functions unresolved. This linker refuses that;
instead STUB, a library with all their names, stands in for it while linking and is struck off afterwards. Binding
must be lazy, as on a machine without the driver the names stay without a function.
"""

import os
import sys

UNRESOLVED = "-Wl,--unresolved-symbols="


def main() -> None:
    triple, stub, *given = sys.argv[1:]
    arguments = [a for a in given if not a.startswith(UNRESOLVED)]
    if len(arguments) < len(given):
        arguments += ["-Wl,-z,lazy", stub]
    os.execv(sys.executable, [sys.executable, "-m", "ziglang", "cc", "-target", triple, *arguments])


main()
