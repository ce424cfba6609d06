"""Writes the cffi module for the C ABI (out-of-line, ABI mode) from the header. Run by CMake."""

import re
import sys
from pathlib import Path

from cffi import FFI


def declarations(header: str) -> str:
    """The part of the header between its cdef marks, without what cffi's parser does not know."""
    body = header.split("/* cdef: begin */")[1].split("/* cdef: end */")[0]
    return re.sub(r"\bMP_API\b", "", body)


def main(header_path: str, module_path: str) -> None:
    ffi = FFI()
    ffi.cdef("struct llama_context; struct llama_sampler;" + declarations(Path(header_path).read_text()))
    ffi.set_source("maskprobe.core._abi", None)
    ffi.emit_python_code(module_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
