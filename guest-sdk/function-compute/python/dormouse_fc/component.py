"""The entry point for componentize-py: the exports of the contract, which call the functions that the settings name."""

import ast
import importlib
import importlib.util
import inspect
import json
import logging
import os
import random
import sys
import time
import traceback

import wit_world
from componentize_py_types import Err

from . import files, network, wsgi
from .context import Context

# Line-buffered, instead of componentize-py's unbuffered streams, which lose the rest of a text when the host takes only
# a part of it.
sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)

# Modules of Python that are of no use to a function, and take long to load.
_NOT_LOADED = {"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo"}

# Of a stack, so many are told; an endless recursion has a thousand.
_FRAMES_MAX = 50


class _Log(logging.Formatter):
    """The form that lines have at Function Compute."""

    converter = time.gmtime
    request_id = ""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(request_id)s [%(levelname)s] %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = self.request_id
        return super().format(record)


_log = _Log()


class WitWorld(wit_world.WitWorld):
    """The exports. A hook whose function is not named does nothing."""

    def initializer(self, ctx) -> None:
        _call(ctx, "FC_FUNCTION_INITIALIZER")

    def handler(self, ctx, event: bytes) -> bytes:
        return _call(ctx, "FC_FUNCTION_HANDLER", bytes(event))

    def pre_freeze(self, ctx) -> None:
        _call_unheard(ctx, "FC_PRE_FREEZE_HANDLER")

    def pre_stop(self, ctx) -> None:
        _call_unheard(ctx, "FC_PRE_STOP_HANDLER")


def _call(ctx, entry: str, *event: bytes):
    """Calls the function that the variable `entry` names."""
    _wake(ctx)
    _log.request_id = ctx.request_id
    context = Context(ctx)
    name = os.environ.get(entry, "index.handler" if event else "")
    if not name:
        return None
    try:
        function = _find(name)
        # An HTTP function of a service is a WSGI application.
        if event and os.environ.get("FC_SERVICE_NAME") and wsgi.is_request(event[0]):
            return wsgi.call(function, event[0], context)
        reply = function(*event, context)
        return _bytes(reply) if event else None
    except BaseException as error:  # `sys.exit` ends the call, not the instance.
        trace = error.__traceback__.tb_next  # Without this function.
        logging.getLogger().error("%s failed", name, exc_info=(type(error), error, trace))
        own = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(files.CODE + "/")]
        told = {
            "errorMessage": _text(error),
            "errorType": type(error).__name__,
            "stackTrace": [line for part in traceback.format_list(own[-_FRAMES_MAX:]) for line in part.rstrip().split("\n")],
        }
        raise Err(json.dumps(told)) from None


def _text(error: BaseException) -> str:
    """What an exception says. It may say nothing, or fail to."""
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__


def _call_unheard(ctx, entry: str) -> None:
    """Calls a hook that has no caller to report to. Its failure is already logged."""
    try:
        _call(ctx, entry)
    except Err:
        pass


def _find(entry: str):
    """The function that `index.handler` or `folder/index.handler` names."""
    path, _, name = entry.rpartition(".")
    if not path:
        raise ValueError(f"'{entry}' must name a file and a function in it, as `index.handler` does")
    module = importlib.import_module(path.replace("/", "."))
    function = getattr(module, name, None)
    if not callable(function):
        raise AttributeError(f"{path}.py has no function `{name}`, which `{entry}` names")
    return function


def _bytes(reply) -> bytes:
    if isinstance(reply, (bytes, bytearray)):
        return bytes(reply)
    return (reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)).encode()


_awake = False


def _wake(ctx) -> None:
    """At an instance's first call: what the build has left is not this instance's."""
    global _awake
    if not _awake:
        _awake = True
        random.seed()
        os.environ.setdefault("FC_INSTANCE_ID", ctx.instance_id)
        os.environ.setdefault("FC_FUNCTION_VERSION", ctx.version)
        os.environ.setdefault("FC_FUNC_CODE_PATH", files.CODE)


def _read_folder() -> None:
    """Reads the folder `code`, which is there only while the component is built."""
    folder = next(path for path in (os.path.join(path, "code") for path in sys.path) if os.path.isdir(path))
    read = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            with open(os.path.join(at, name), "rb") as file:
                read.append((files.CODE + os.path.join(at, name)[len(folder) :], file.read()))
    for path, content in read:
        files.add(path, content)


def _imports(path: str) -> tuple[set[str], set[str]]:
    """What a file imports: at its top, where it cannot do without, and anywhere."""
    try:
        tree = ast.parse(files.content(path))
    except (SyntaxError, ValueError):
        return set(), set()

    def names(node: ast.AST) -> set[str]:
        if isinstance(node, ast.Import):
            return {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names if alias.name != "*")}
        return set()

    return set().union(*map(names, tree.body)), set().union(*map(names, ast.walk(tree)))


def _is_own(path: str, packages: set[str]) -> bool:
    return path.removeprefix(files.CODE + "/").split("/")[0] not in packages


def _load() -> None:
    """Loads what will be imported and is not the user's own: later there are no files to load it from."""
    listed = files.CODE + "/.dormouse-packages"
    packages = set(files.content(listed).decode().split("\n")) if listed in files.paths() else set()
    needed, standard, wanted = {}, set(), set()
    for path in files.paths():
        if not path.endswith(".py"):
            continue
        top, anywhere = _imports(path)
        standard |= {name for name in anywhere if name.split(".")[0] in sys.stdlib_module_names - _NOT_LOADED}
        if _is_own(path, packages):
            compile(files.content(path), path.removeprefix(files.CODE + "/"), "exec", dont_inherit=True)
            needed.update({name.split(".")[0]: path for name in top})
            wanted |= {name for name in anywhere if name.split(".")[0] in packages}
    for name in sorted(standard | wanted):
        try:
            importlib.import_module(name)
        except BaseException:
            pass  # It may be one that is imported only elsewhere, such as on Windows; or no module but a name in one.
    for name, path in needed.items():
        at = path.removeprefix(files.CODE + "/")
        if importlib.util.find_spec(name) is None:
            raise SystemExit(f"`{name}`, which {at} imports, is not there; requirements.txt names the packages")
        if name in packages or name in sys.stdlib_module_names:
            try:
                importlib.import_module(name)
            except Exception as error:
                raise SystemExit(f"`{name}`, which {at} imports, cannot run in a component: {error}")


network.install()
_read_folder()
sys.path[:] = [files.CODE, *(path for path in sys.path if not path.endswith("/code"))]
files.install()
_load()
logging.basicConfig(level=logging.INFO)
for _handler in logging.getLogger().handlers:
    _handler.setFormatter(_log)
