"""Outlast's foot in the notebook's Python.

Runs once in the wrapped kernel. It gives cells that Outlast answers their
number and their place in the history, hides Outlast's lines from Python in
cells that hold both, and makes the magics IPython's own, so that they work in
the middle of Python, complete on Tab and answer ``?``.
"""

import ast
import contextlib
import itertools
import json
import signal
import socket
import sys

MIME = "application/vnd.outlast+json"


class OutlastError(Exception):
    """What a magic could not do. Its traceback is the text, without frames."""

    lines = ()

    def _render_traceback_(self):
        return list(self.lines)


class Json:
    """A value on its way to Outlast."""

    def __init__(self, text):
        self.text = text

    def _repr_mimebundle_(self, **kwargs):
        return {MIME: json.loads(self.text), "text/plain": self.text}


class Shown(dict):
    """The value of a magic that stands by itself, which has shown it: IPython's display of it shows nothing, once."""

    _told = False

    def _ipython_display_(self):
        if self._told:
            raise NotImplementedError  # which has IPython show it like any dict
        self._told = True


def shown(value):
    return Shown(value) if isinstance(value, dict) else value


class Alone(ast.NodeTransformer):
    """Marks magics that stand by themselves: the values of others are the user's, who may want to see them."""

    def visit(self, node):
        return node if isinstance(node, ast.expr) else super().visit(node)  # only whole statements matter

    def visit_Expr(self, node):
        if runs_magic(node.value):
            mark = ast.parse(f"__import__({__name__!r}).shown(0)", mode="eval").body
            mark.args = [node.value]
            node.value = ast.copy_location(mark, node.value)
        return node


def runs_magic(node):
    """Whether an expression is what IPython makes of a line with a magic of Outlast's."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return False
    name = getattr(node.args[0], "value", "")
    name = getattr(ip.find_line_magic(name), "magic_name", name)  # of an alias
    return node.func.attr in ("run_line_magic", "run_cell_magic") and name in magics


def plain(value):
    """The JSON form of what json does not know."""
    if hasattr(value, "tolist"):  # numpy, torch
        return value.tolist()
    if hasattr(value, "_asdict"):
        return value._asdict()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118  # it need not be a dict
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no plain data: use numbers, texts, lists and dicts")


def evaluate(expr):
    """The value of an expression in the notebook."""
    value = eval(expr, ip.user_global_ns, ip.user_ns)
    return Json(json.dumps(value, default=plain, allow_nan=False))


def book(code):
    """Numbers a cell as if Python had run it."""
    number = ip.execution_count
    ip.history_manager.store_inputs(number, code, code)
    ip.execution_count = number + 1
    return Json(str(number))


def adopt(header):
    """Makes a cell of Outlast's the one that threads and processes print for from now on."""
    if hasattr(ip, "set_parent"):  # ipykernel's
        ip.set_parent({"header": json.loads(header)})


announced = {}


def announce(code, lines, instead):
    """Says how many leading lines of the cell that comes next are not Python's, and what runs instead."""
    announced.clear()
    announced[code] = lines, instead
    return Json("true")


hidden = []  # leading lines of the cell that is on its way through IPython's transformers


def blank(lines):
    """Hides them."""
    hidden.clear()
    text = "".join(lines)
    count, instead = announced.get(text) or announced.get(text.removesuffix("\n")) or (0, "")
    if not count:
        return lines
    left = [instead + "\n", *["\n"] * (min(count, len(lines)) - 1), *lines[count:]]
    hidden.extend(itertools.takewhile(str.isspace, left))
    return left


def number(lines):
    """Gives the lines below those that are hidden their numbers: IPython drops empty lines at the beginning."""
    empty = ["\n"] * len(hidden) if lines and not lines[0].isspace() else []
    hidden.clear()
    return empty + lines


def keeping(store_inputs):
    """Has the history keep a cell as it was typed, In too: IPython would keep there what blank has left."""

    def store(line_num, source, source_raw=None):
        return store_inputs(line_num, source_raw if source_raw in announced else source, source_raw)

    return store


def forget(*_):
    announced.clear()


def connect():
    address = config["address"]
    if ":" in address and not address.startswith("/"):
        host, port = address.rsplit(":", 1)
        return socket.create_connection((host, int(port)))
    s = socket.socket(socket.AF_UNIX)
    s.connect(address)
    return s


def parent():
    """The request whose cell calls a magic: header and metadata."""
    try:
        message = ip.kernel.get_parent()
        return {"header": message.get("header", {}), "metadata": message.get("metadata", {})}
    except Exception:  # another kernel's IPython
        return {}


class Call:
    """One call of a magic: a connection to Outlast, on which both sides speak lines of JSON."""

    def __init__(self, incoming, outgoing):
        self.incoming = incoming
        self.outgoing = outgoing  # a file of its own: one for both drops what it has read when it writes
        self.busy = False  # a line is on its way: an interrupt must not tear it
        self.ours = False  # the notebook's own code runs: an interrupt is its
        self.waiting = 0

    def send(self, **message):
        line = json.dumps(message, default=str) + "\n"
        self.busy = True
        self.outgoing.write(line)
        self.outgoing.flush()
        self.busy = False
        while self.waiting:
            self.waiting -= 1
            self.send(interrupt=True)

    def interrupted(self, *_):
        """Handles SIGINT: the magic is told, and says how it ends."""
        if self.ours:
            raise KeyboardInterrupt
        if self.busy:
            self.waiting += 1
        else:
            self.send(interrupt=True)

    def lines(self):
        while True:
            try:
                text = self.incoming.readline()
            except KeyboardInterrupt:  # where signals are not ours to handle
                self.send(interrupt=True)
                continue
            if not text:
                raise OutlastError("Outlast has ended: restart the kernel")
            yield json.loads(text)


@contextlib.contextmanager
def handling(handler):
    """Handles SIGINT, where this thread may."""
    try:
        before = signal.signal(signal.SIGINT, handler)
    except ValueError:  # a subshell
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def call(name, cell, line, body):
    """Runs a magic in Outlast and shows here what it shows."""
    sys.stdout.flush()
    sys.stderr.flush()
    form = {"encoding": "utf-8", "newline": "\n"}
    with connect() as s, s.makefile("r", **form) as incoming, s.makefile("w", **form) as outgoing:
        one = Call(incoming, outgoing)
        with handling(one.interrupted):
            one.send(token=config["token"], name=name, cell=cell, line=line, body=body, parent=parent())
            for message in one.lines():
                if message["op"] == "end":
                    break
                show(message, one)
    return finish(message)


def show(message, one):
    """Does one thing that a magic asks for."""
    content = message.get("content", {})
    if message["op"] == "stream":
        out = sys.stderr if content["name"] == "stderr" else sys.stdout
        out.write(content["text"])
        out.flush()
    elif message["op"] in ("display_data", "update_display_data"):
        ip.display_pub.publish(
            data=content["data"],
            metadata=content.get("metadata") or {},
            transient=content.get("transient") or {},  # a result that is shown again has none
            update=message["op"] == "update_display_data",
        )
    elif message["op"] == "eval":
        answer(one, lambda: json.loads(evaluate(message["code"]).text))
    elif message["op"] == "exec":
        answer(one, lambda: exec(message["code"], ip.user_ns))


def answer(one, work):
    """Answers with what the notebook's own code gives."""
    try:
        one.ours = True
        try:
            value = work()
        finally:
            one.ours = False
    except (Exception, KeyboardInterrupt) as error:
        one.send(error={"ename": type(error).__name__, "evalue": str(error)})
    else:
        one.send(value=value)


def finish(message):
    """The end of a magic: its value, or its error."""
    error = message.get("error")
    if error:
        kind = type(error["ename"], (OutlastError,), {"lines": error["traceback"] or [error["evalue"]]})
        raise kind(error["evalue"])
    return message.get("value")


def expand(line, depth):
    """What IPython does with {names} in a line, up to --: behind it they are the models'."""
    own, dashes, command = line.partition("-- ") if line.startswith("-- ") else line.partition(" -- ")
    return ip.var_expand(own, depth=depth + 1) + dashes + command


def register(magic):
    """Makes one magic IPython's own."""
    name = magic["name"]

    def line_magic(line):
        return call(name, False, expand(line, 2), "")

    def cell_magic(line, cell=""):
        value = call(name, True, expand(line, 2), cell)
        if not magic["body"]:
            ip.run_cell(cell)
        return value

    for function, kind in ((line_magic, "line"), (cell_magic, "cell")):
        if magic[kind]:
            function.__doc__ = magic["help"]
            function._ipython_magic_no_var_expand = True  # see expand
            function.__name__ = name
            ip.register_magic_function(function, kind, name)


def install():
    """Finds IPython; without it there is nothing to do."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or not hasattr(shell, "input_transformers_cleanup"):
        return None
    shell.input_transformers_cleanup.insert(0, blank)
    shell.input_transformers_post.append(number)
    shell.ast_transformers.append(Alone())
    shell.history_manager.store_inputs = keeping(shell.history_manager.store_inputs)
    shell.events.register("post_run_cell", forget)
    return shell


config = json.loads(CONFIG)  # noqa: F821  # Outlast defines it
magics = {magic["name"] for magic in config["names"]}
ip = install()
if ip is not None:
    module = type(sys)("_outlast_bridge", __doc__)
    module.__dict__.update(globals())
    sys.modules["_outlast_bridge"] = module
    for each in config["names"]:
        register(each)
