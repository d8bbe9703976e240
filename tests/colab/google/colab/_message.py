"""Questions to the page: a message on iopub, and an answer on stdin that answers no input_request."""

import itertools
import time

import zmq
from IPython import get_ipython

numbers = itertools.count(1)


class MessageError(Exception):
    """The page answered with an error."""


def send_request(request_type, body, parent=None, expect_reply=True):
    """Publishes a question; returns its number."""
    kernel = get_ipython().kernel
    metadata = {"colab_request_type": request_type}
    number = None
    if expect_reply:
        number = metadata["colab_msg_id"] = next(numbers)
    if parent is None:  # not about a cell: only the session is told
        parent = {"header": {"session": kernel.get_parent("shell")["header"]["session"]}}
    message = kernel.session.msg("colab_request", content={"request": body}, metadata=metadata, parent=parent)
    kernel.session.send(kernel.iopub_socket, message)  # without a topic
    return number


def read_reply(number, timeout):
    """Waits for the answer; None if there is none in time."""
    kernel = get_ipython().kernel
    end = None if timeout is None else time.monotonic() + timeout
    while end is None or time.monotonic() < end:
        try:
            _, reply = kernel.session.recv(kernel.stdin_socket, zmq.NOBLOCK)
        except Exception:  # one that cannot be read is none
            reply = None
        value = reply["content"].get("value") if reply else None
        if not isinstance(value, dict):
            time.sleep(0.025)
        elif value.get("type") == "colab_reply" and value.get("colab_msg_id") == number:
            if "error" in value:
                raise MessageError(value["error"])
            return value.get("data")
    return None


def blocking_request(request_type, request="", timeout_sec=5, parent=None):
    """Asks the page."""
    return read_reply(send_request(request_type, request, parent), timeout_sec)
