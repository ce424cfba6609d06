"""A llama-cpp-python that does not fit is refused at import, with what is wrong and the command that mends it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def import_with(change: str) -> subprocess.CompletedProcess[str]:
    """Imports the package in a new process after a change to the installed llama_cpp."""
    code = f"""
import llama_cpp
{textwrap.dedent(change)}
try:
    from maskprobe import MaskProbeLlama
except Exception as error:
    print(type(error).__name__, error)
else:
    print("imported")
"""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )


def test_the_unchanged_library_is_accepted() -> None:
    assert import_with("").stdout.strip() == "imported"


@pytest.mark.parametrize("version", ["0.3.34", "0.3.4", "0.2.90"])
def test_older_versions_are_refused(version: str) -> None:
    out = import_with(f"llama_cpp.__version__ = {version!r}").stdout
    assert out.startswith("BindingError")
    assert f"works with llama-cpp-python>=0.3.35, but {version} is installed" in out
    assert 'pip install "llama-cpp-python>=0.3.35,<0.3.37"' in out


@pytest.mark.parametrize("version", ["0.3.35", "0.3.35+cu124", "0.3.36", "0.3.36+cu124"])
def test_builds_of_a_tested_version_are_accepted(version: str) -> None:
    assert import_with(f"llama_cpp.__version__ = {version!r}").stdout.strip() == "imported"


@pytest.mark.parametrize("version", ["0.3.37", "0.3.37+cu124", "0.4.0", "1.0.0"])
def test_newer_versions_in_which_all_is_there_are_accepted(version: str) -> None:
    assert import_with(f"llama_cpp.__version__ = {version!r}").stdout.strip() == "imported"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param("del llama_cpp.llama_vocab_get_attr", "llama_cpp lacks llama_vocab_get_attr", id="function"),
        pytest.param("del llama_cpp.LLAMA_LOAD_MODE_MMAP", "llama_cpp lacks LLAMA_LOAD_MODE_MMAP", id="constant"),
        pytest.param("del llama_cpp.llama_cpp._base_path", "llama_cpp lacks llama_cpp._base_path", id="path"),
        pytest.param(
            "llama_cpp.llama_sampler_init_penalties.argtypes.pop()",
            "llama_sampler_init_penalties is declared as ptr(int32, int32, float32, float32), expected ptr(int32,",
            id="parameter",
        ),
        pytest.param(
            "llama_cpp.llama_n_ctx.restype = ctypes.c_uint64",
            "llama_n_ctx is declared as int64(ptr), expected int32(ptr)",
            id="result",
        ),
        pytest.param(
            "params = llama_cpp.llama_context_params\n"
            "others = [(name + 's' * (name == 'kv_unified'), kind) for name, kind in params._fields_]\n"
            "llama_cpp.llama_context_params = type('llama_context_params', (ctypes.Structure,), {'_fields_': others})",
            "llama_context_params lacks the field kv_unified",
            id="field",
        ),
        pytest.param(
            "fields = [*llama_cpp.llama_token_data_array._fields_[:3], ('sorted', ctypes.c_int)]\n"
            "llama_cpp.llama_token_data_array = type('array', (ctypes.Structure,), {'_fields_': fields})",
            "llama_token_data_array is laid out as ptr data, int64 size, int64 selected, int32 sorted, expected",
            id="layout",
        ),
        pytest.param(
            "real = llama_cpp.llama_context_default_params\n"
            "class Shifted(llama_cpp.llama_context_params): n_batch = 0\n"
            "def changed(): return Shifted.from_buffer(real())\n"
            "changed.restype, changed.argtypes = llama_cpp.llama_context_params, []\n"
            "llama_cpp.llama_context_default_params = changed",
            "llama_context_default_params() has n_batch=0, expected 1 to 1048576",
            id="defaults",
        ),
        pytest.param(
            "zeros = ctypes.create_string_buffer(64)\n"
            "none = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)(lambda type: ctypes.addressof(zeros))\n"
            "llama_cpp.llama_cpp._lib.ggml_get_type_traits = none",
            "ggml_type_traits is laid out differently",
            id="traits",
        ),
    ],
)
def test_newer_versions_in_which_something_differs_are_refused(change: str, said: str) -> None:
    out = import_with(f"import ctypes\nllama_cpp.__version__ = '0.3.37'\n{change}").stdout
    assert out.startswith("BindingError")
    assert f"and does not fit: {said}" in out
    assert "0.3.37 is newer than those maskprobe was tested with (0.3.35 to 0.3.36)" in out
    assert 'pip install "llama-cpp-python>=0.3.35,<0.3.37"' in out


def test_all_that_differs_is_said_at_once() -> None:
    out = import_with("llama_cpp.__version__ = '1.0.0'\ndel llama_cpp.llama_free, llama_cpp.llama_token").stdout
    assert "llama_cpp lacks llama_token; llama_cpp lacks llama_free" in out


def test_a_missing_function_is_named() -> None:
    change = """
    class Without:
        def __init__(self, library):
            self.library = library
        def __getattr__(self, name):
            if name == "llama_memory_seq_cp":
                raise AttributeError(name)
            return getattr(self.library, name)
    raw = llama_cpp.llama_cpp
    real = raw.load_shared_library
    raw._lib = Without(raw._lib)
    raw.load_shared_library = lambda *a: Without(real(*a))
    """
    out = import_with(change).stdout
    assert out.startswith("BindingError")
    assert "lacks llama_memory_seq_cp" in out
    assert "pip install" in out


def test_another_batch_layout_is_refused() -> None:
    change = """
    import ctypes
    fields = list(llama_cpp.llama_batch._fields_)
    class Batch(ctypes.Structure):
        _fields_ = [*fields[:2], ("extra", ctypes.c_int64), *fields[2:]]
    llama_cpp.llama_batch = Batch
    """
    out = import_with(change).stdout
    assert out.startswith("BindingError")
    assert "llama_batch is laid out differently" in out


def test_an_absent_library_is_said_so() -> None:
    out = import_with("import sys; sys.modules['llama_cpp'] = None").stdout
    assert out.startswith("BindingError llama-cpp-python cannot be imported")
    assert "pip install" in out


def test_a_broken_library_is_installed_anew() -> None:
    change = """
    import importlib.abc, sys
    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "llama_cpp":
                raise RuntimeError("libcudart.so.12: cannot open shared object file")
    sys.meta_path.insert(0, Broken())
    del sys.modules["llama_cpp"]
    """
    out = import_with(change).stdout
    assert out.startswith("BindingError llama-cpp-python cannot be imported (libcudart.so.12")
    assert 'pip install --force-reinstall --no-cache-dir --no-deps "llama-cpp-python>=0.3.35,<0.3.37"' in out


def test_the_command_line_says_it_in_one_line() -> None:
    code = textwrap.dedent("""
        import sys
        sys.modules["llama_cpp"] = None
        sys.argv = ["maskprobe", "doctor"]
        from maskprobe.cli import main
        main()
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert "llama-cpp-python cannot be imported" in line
    assert "pip install" in line


def test_importing_the_package_loads_no_llama_cpp() -> None:
    code = "import sys, maskprobe, maskprobe.errors; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
