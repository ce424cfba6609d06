"""Is an installed wheel whole, and does its native core load? Needs cffi, but neither llama-cpp-python nor a model.

Run by cibuildwheel on every platform, where building llama-cpp-python would take much longer than the wheel, and by
tests/packaging/test_packaging.py on what is installed.
"""

import sys
from importlib.metadata import distribution
from importlib.resources import files

FILES = (
    "bench/report.html",
    "core/_abi.py",
    "models/README.md",
    "models/catalog.toml",
    "py.typed",
    "server/static/page.css",
    "server/static/page.html",
    "server/static/page.js",
    "core/" + {"win32": "maskprobe.dll", "darwin": "libmaskprobe.dylib"}.get(sys.platform, "libmaskprobe.so"),
)


def main() -> None:
    """Raises AssertionError with what is wrong."""
    package = files("maskprobe")
    missing = [name for name in FILES if not package.joinpath(name).is_file()]
    assert not missing, f"the wheel lacks {missing}"
    scripts = {(point.group, point.name) for point in distribution("maskprobe").entry_points}
    assert {("console_scripts", "maskprobe"), ("llm", "maskprobe")} <= scripts, f"entry points: {scripts}"

    from maskprobe.core._abi import ffi

    core = ffi.dlopen(str(package.joinpath(FILES[-1])))
    names = []
    while (name := core.mp_required_function(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    assert {"llama_decode", "llama_get_memory"} <= set(names), f"the core asks for {names}"
    c_names = [ffi.new("char[]", name.encode()) for name in names]
    status = core.mp_bind(c_names, [ffi.NULL] * len(names), len(names), [0] * 8)
    message = ffi.string(core.mp_last_error()).decode()
    assert status == core.MP_ERROR_BINDING, f"the core binds without llama.cpp: {status}"
    assert "llama" in message, f"the core's message is {message!r}"
    print(f"maskprobe {distribution('maskprobe').version}: {len(FILES)} files, {len(names)} functions of llama.cpp")


if __name__ == "__main__":
    main()
