"""Scripts that the page runs, and functions that its scripts call."""

import json

from IPython import get_ipython

from google.colab import _message

functions = {}


def eval_js(script, ignore_result=False, timeout_sec=None):
    """Runs a script in the page of the cell."""
    parent = get_ipython().kernel.get_parent("shell")
    number = _message.send_request("cell_javascript_eval", {"script": script}, parent=parent)
    return None if ignore_result else _message.read_reply(number, timeout_sec)


def register_callback(name, callback):
    """Lets the page's scripts call a function."""
    functions[name] = callback


def _invoke_function(name, args, kwargs):
    """Called by the page, as an expression of a silent cell."""
    return functions[name](*json.loads(args), **json.loads(kwargs))
