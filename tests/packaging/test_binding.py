"""A llama-cpp-python that does not fit is refused at import, with both versions and the command that mends it."""

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


@pytest.mark.parametrize("version", ["0.3.34", "0.3.4", "0.2.90", "0.3.37", "0.3.37+cu124", "0.4.0", "1.0.0"])
def test_other_versions_are_refused(version: str) -> None:
    out = import_with(f"llama_cpp.__version__ = {version!r}").stdout
    assert out.startswith("BindingError")
    assert f"but {version} is installed" in out
    assert 'pip install "llama-cpp-python>=0.3.35,<0.3.37"' in out


@pytest.mark.parametrize("version", ["0.3.35", "0.3.35+cu124", "0.3.36", "0.3.36+cu124"])
def test_builds_of_a_supported_version_are_accepted(version: str) -> None:
    assert import_with(f"llama_cpp.__version__ = {version!r}").stdout.strip() == "imported"


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
