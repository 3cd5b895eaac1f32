"""Files in memory: `/code`, which holds the function's folder, and `/tmp`, which is empty at first.

A component has no files. These stand behind `open`, `os` and `import`, for paths below the two folders; all other paths
are as they were. What is written to `/tmp` counts as the instance's memory and goes with it.
"""

import builtins
import errno
import io
import os
import stat
import sys
import tempfile
from importlib.machinery import ModuleSpec
from importlib.readers import FileReader

CODE = "/code"
_ROOTS = (CODE, "/tmp")
_contents: dict[str, bytes] = {}
_folders: set[str] = set(_ROOTS)
_compiled: dict[str, object] = {}
_native: dict[str, str] = {}


def add(path: str, content: bytes) -> None:
    """Puts a file below `/code`. Modules are compiled at once, because that takes long."""
    if path.endswith((".so", ".pyd")):
        # `package/_speedups.cpython-314-x86_64-linux-gnu.so` is the module `package/_speedups`.
        _native[path[: path.index(".", path.rindex("/"))]] = path
        return
    _contents[path] = content
    folder = os.path.dirname(path)
    while folder not in _folders:
        _folders.add(folder)
        folder = os.path.dirname(folder)
    if path.endswith(".py"):
        try:
            _compiled[path] = compile(content, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            pass  # It may be one that nobody imports. Whoever does gets the error.


def paths() -> list[str]:
    """All files."""
    return list(_contents)


def content(path: str) -> bytes:
    """The bytes of a file."""
    return _contents[path]


def install() -> None:
    """Puts the files behind the functions of Python."""
    builtins.open = io.open = _open
    for name, replacement in {
        "stat": _stat,
        "lstat": _stat,
        "listdir": _listdir,
        "scandir": _scandir,
        "mkdir": _mkdir,
        "remove": _remove,
        "unlink": _remove,
        "rmdir": _rmdir,
        "rename": _rename,
        "replace": _rename,
        "access": lambda path, mode, **_: _exists(path),
        "getcwd": lambda: CODE,
    }.items():
        setattr(os, name, replacement)
    tempfile.tempdir = "/tmp"
    tempfile.TemporaryFile = lambda mode="w+b", *_, **__: io.BytesIO() if "b" in mode else io.StringIO()
    sys.path_hooks.insert(0, _Finder)
    sys.path_importer_cache.clear()


def _own(path) -> str | None:
    """The whole path, if it is below one of the folders."""
    if isinstance(path, int):
        return None
    path = os.fsdecode(path)
    path = os.path.normpath(os.path.join(CODE, path))
    return path if path in _ROOTS or path.startswith(tuple(root + "/" for root in _ROOTS)) else None


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _exists(path) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


_real_open, _real_stat, _real_listdir, _real_scandir = io.open, os.stat, os.listdir, os.scandir


class _Written(io.BytesIO):
    """A file below `/tmp` that is open for writing."""

    def __init__(self, path: str, before: bytes, appends: bool) -> None:
        super().__init__(before)
        self._path = path
        if appends:
            self.seek(0, io.SEEK_END)

    def flush(self) -> None:
        super().flush()
        _contents[self._path] = self.getvalue()

    def close(self) -> None:
        if not self.closed:
            self.flush()
        super().close()


def _open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    path = _own(file)
    if path is None:
        return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if path in _folders:
        raise _error(errno.EISDIR, path)
    if any(letter in mode for letter in "wax+"):
        raw = _written(path, mode)
    elif path not in _contents:
        raise _error(errno.ENOENT, path)
    else:
        raw = io.BytesIO(_contents[path])
    raw.name, raw.mode = path, mode
    return raw if "b" in mode else io.TextIOWrapper(raw, encoding or "utf-8", errors, newline)


def _written(path: str, mode: str) -> io.BytesIO:
    if not path.startswith("/tmp/"):
        raise _error(errno.EROFS, path)
    if os.path.dirname(path) not in _folders or ("r" in mode and path not in _contents):
        raise _error(errno.ENOENT, path)
    if "x" in mode and path in _contents:
        raise _error(errno.EEXIST, path)
    before = b"" if "w" in mode else _contents.get(path, b"")
    _contents[path] = before
    return _Written(path, before, "a" in mode)


def _stat(path, **others):
    own = _own(path)
    if own is None:
        return _real_stat(path, **others)
    if own in _folders:
        mode, size = stat.S_IFDIR | 0o755, 0
    elif own in _contents:
        mode, size = stat.S_IFREG | 0o644, len(_contents[own])
    else:
        raise _error(errno.ENOENT, own)
    return os.stat_result((mode, 0, 0, 1, 0, 0, size, 0, 0, 0))


def _listdir(path="."):
    own = _own(path)
    if own is None:
        return _real_listdir(path)
    if own not in _folders:
        raise _error(errno.ENOTDIR if own in _contents else errno.ENOENT, own)
    below = own + "/"
    return sorted({name[len(below) :].split("/")[0] for name in [*_contents, *_folders] if name.startswith(below)})


class _Entry:
    """A file or folder in a folder that is read."""

    def __init__(self, folder: str, name: str) -> None:
        self.name, self.path = name, os.path.join(folder, name)

    def is_dir(self, **_) -> bool:
        return _own(self.path) in _folders

    def is_file(self, **_) -> bool:
        return _own(self.path) in _contents

    def is_symlink(self) -> bool:
        return False

    is_junction = is_symlink

    def stat(self, **_):
        return _stat(self.path)

    def __fspath__(self) -> str:
        return self.path


class _Entries(list):
    """What `os.scandir` returns: to be read once, and closed."""

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.clear()

    def __iter__(self):
        return self

    def __next__(self):
        if not self:
            raise StopIteration
        return self.pop(0)

    def close(self) -> None:
        self.clear()


def _scandir(path="."):
    if _own(path) is None:
        return _real_scandir(path)
    return _Entries(_Entry(os.fsdecode(path), name) for name in _listdir(path))


def _writable(path) -> str:
    own = _own(path)
    if own is None or not own.startswith("/tmp/"):
        raise _error(errno.EROFS, os.fsdecode(path))
    return own


def _mkdir(path, mode=0o777, **_) -> None:
    own = _own(path)
    if own in _folders or own in _contents:
        raise _error(errno.EEXIST, own)
    own = _writable(path)
    if os.path.dirname(own) not in _folders:
        raise _error(errno.ENOENT, own)
    _folders.add(own)


def _remove(path, **_) -> None:
    if _contents.pop(_writable(path), None) is None:
        raise _error(errno.ENOENT, os.fsdecode(path))


def _rmdir(path, **_) -> None:
    own = _writable(path)
    if _listdir(own):
        raise _error(errno.ENOTEMPTY, own)
    _folders.discard(own)


def _rename(source, target, **_) -> None:
    source, target = _writable(source), _writable(target)
    if source not in _contents:
        raise _error(errno.ENOENT, source)
    _contents[target] = _contents.pop(source)


class _Finder:
    """Finds modules in one folder below `/code`."""

    def __init__(self, folder: str) -> None:
        self._folder = _own(folder)
        if self._folder is None or not self._folder.startswith(CODE):
            raise ImportError(f"{folder} is not below {CODE}")

    def find_spec(self, name: str, target=None) -> ModuleSpec | None:
        base = f"{self._folder}/{name.rpartition('.')[2]}"
        for path, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if path in _contents:
                spec = ModuleSpec(name, _Loader(path), origin=path, is_package=is_package)
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations = [base]
                return spec
        if base in _native:
            return ModuleSpec(name, _NoLoader(_native[base]))
        if base in _folders:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [base]
            return spec
        return None


class _Loader:
    """Runs a module from memory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        code = _compiled.get(self.path)
        exec(code or compile(_contents[self.path], self.path, "exec", dont_inherit=True), module.__dict__)

    def get_data(self, path: str) -> bytes:
        with _open(path, "rb") as file:
            return file.read()

    def get_source(self, name: str) -> str:
        return _contents[self.path].decode()

    def get_resource_reader(self, name: str) -> FileReader:
        return FileReader(self)

    def is_package(self, name: str) -> bool:
        return self.path.endswith("/__init__.py")


class _NoLoader:
    """Says why a module cannot be loaded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def create_module(self, spec):
        raise ImportError(f"{self._path} is machine code, which a component cannot run", name=spec.name)

    def exec_module(self, module) -> None:
        raise AssertionError("it has no module")
