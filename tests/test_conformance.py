"""The Jupyter project's conformance suite, on our kernel and on the one inside it.

The second is there to show that whatever the suite asks, the two answer alike.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jupyter_kernel_test as suite
import pytest


@pytest.fixture(scope="module", autouse=True)
def the_kernel(kernel_spec: Path) -> object:
    """Lets the suite find, by its name, the kernel that was installed for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(kernel_spec.parent))
        yield


class Expectations:
    """Everything that ipykernel supports, switched on."""

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = (
        {"text": "zi", "matches": {"zip"}},
        {"text": "import zoneinf", "matches": {"zoneinfo"}},
    )
    complete_code_samples = ("1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n")
    incomplete_code_samples = ("print('''hello", "def f(x):\n  x*2")
    invalid_code_samples = ("import = 7q",)
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = (
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    )
    code_display_data = (
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    )
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")  # as in ipykernel's own tests
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    support_iopub_welcome = True


class TestOutlast(Expectations, suite.KernelTests):
    kernel_name = "outlast"


class TestIpykernel(Expectations, suite.KernelTests):
    kernel_name = "python3"


class TestOutlastMagics(suite.KernelTests):
    """What Outlast adds, asked in the same way."""

    kernel_name = "outlast"
    language_name = "python"
    code_hello_world = "%%shared\nprint('hello, world')"
    completion_samples = ({"text": "%gpu_c", "matches": {"%gpu_config"}}, {"text": "%%tr", "matches": {"%%train"}})
    code_generate_error = "%status no-such-run"
    code_display_data = ({"code": "%gpu_config", "mime": "text/html"},)
    code_inspect_sample = "%train"
    code_page_something = "if True:\n    %train?"


class Patient:
    """The suite waits for ever; a welcome that does not come is a failure."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.kc.get_iopub_msg = functools.partial(cls.kc.get_iopub_msg, timeout=60)


class TestOutlastWelcome(Expectations, Patient, suite.IopubWelcomeTests):
    kernel_name = "outlast"


class TestIpykernelWelcome(Expectations, Patient, suite.IopubWelcomeTests):
    kernel_name = "python3"


del suite  # its classes, imported by name, would be collected as tests of their own
