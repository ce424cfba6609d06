"""The declarations in native/src/llama_api.h against the installed llama.h, and the RPC protocol against its header.

The core calls llama.cpp through addresses alone, so no compiler sees both sides of a call. Here one does: a generated
file includes both headers and holds every function and every struct of ours to the original.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from maskprobe.llamacpp import rpc

HEADER = Path(__file__).parents[2] / "native" / "src" / "llama_api.h"

CHECK = r"""
#include <llama.h>

#include "llama_api.h"

#include <cstddef>
#include <type_traits>

template <class Ours, class Theirs> struct mirrors : std::is_same<Ours, Theirs> {};
template <> struct mirrors<mp::llama_batch, ::llama_batch> : std::true_type {};
template <> struct mirrors<mp::llama_token_data, ::llama_token_data> : std::true_type {};
template <> struct mirrors<mp::llama_token_data_array, ::llama_token_data_array> : std::true_type {};
template <> struct mirrors<mp::gguf_init_params, ::gguf_init_params> : std::true_type {};
template <> struct mirrors<mp::ggml_type_traits, ::ggml_type_traits> : std::true_type {};

// One parameter or result: the same type, a mirrored struct, an integer of the same size for an enum, or a pointer to
// one of these.
template <class Ours, class Theirs> constexpr bool compatible() {
    if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
        return mirrors<std::remove_const_t<std::remove_pointer_t<Ours>>,
                       std::remove_const_t<std::remove_pointer_t<Theirs>>>::value;
    } else if constexpr (std::is_integral_v<Ours> && std::is_enum_v<Theirs>) {
        return sizeof(Ours) == sizeof(Theirs);
    } else {
        return mirrors<Ours, Theirs>::value;
    }
}

template <class Ours, class Theirs> struct signature;
template <class R, class... P, class S, class... Q> struct signature<R (*)(P...), S (*)(Q...)> {
    static constexpr bool matches() {
        if constexpr (sizeof...(P) == sizeof...(Q)) {
            return compatible<R, S>() && (compatible<P, Q>() && ...);
        } else {
            return false;
        }
    }
};

#define FUNCTION(result, name, parameters)                                                                             \
    static_assert(signature<decltype(mp::LlamaApi::name), decltype(&::name)>::matches(), #name " differs from llama.h");
MP_LLAMA_FUNCTIONS(FUNCTION)

#define SIZE(type) static_assert(sizeof(mp::type) == sizeof(::type), #type " differs in size from llama.h");
#define FIELD(type, name)                                                                                              \
    static_assert(std::is_same_v<decltype(mp::type::name), decltype(::type::name)> &&                                  \
                      offsetof(mp::type, name) == offsetof(::type, name),                                              \
                  #type "." #name " differs from llama.h");

SIZE(llama_batch)
FIELD(llama_batch, n_tokens)
FIELD(llama_batch, token)
FIELD(llama_batch, embd)
FIELD(llama_batch, pos)
FIELD(llama_batch, n_seq_id)
FIELD(llama_batch, seq_id)
FIELD(llama_batch, logits)

SIZE(llama_token_data)
FIELD(llama_token_data, id)
FIELD(llama_token_data, logit)
FIELD(llama_token_data, p)

SIZE(llama_token_data_array)
FIELD(llama_token_data_array, size)
FIELD(llama_token_data_array, selected)
FIELD(llama_token_data_array, sorted)
static_assert(offsetof(mp::llama_token_data_array, data) == offsetof(::llama_token_data_array, data),
              "llama_token_data_array.data differs from llama.h");

SIZE(gguf_init_params)
FIELD(gguf_init_params, no_alloc)
FIELD(gguf_init_params, ctx)

SIZE(ggml_type_traits)
FIELD(ggml_type_traits, type_name)
FIELD(ggml_type_traits, blck_size)
FIELD(ggml_type_traits, blck_size_interleave)
FIELD(ggml_type_traits, type_size)
FIELD(ggml_type_traits, is_quantized)
FIELD(ggml_type_traits, to_float)
FIELD(ggml_type_traits, from_float_ref)
"""


GGML_CHECK = r"""
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include "ggml_api.h"

#define SIZE(ours, theirs)                                                                                             \
    static_assert(sizeof(mp::ggml::ours) == sizeof(theirs), #ours " differs in size from ggml.h");
#define FIELD(ours, theirs, name)                                                                                      \
    static_assert(offsetof(mp::ggml::ours, name) == offsetof(theirs, name) &&                                          \
                      sizeof(mp::ggml::ours::name) == sizeof(theirs::name),                                            \
                  #ours "." #name " differs from ggml.h");
#define VALUE(ours, theirs) static_assert(mp::ggml::ours == theirs, #ours " differs from ggml.h");

SIZE(Tensor, ggml_tensor)
FIELD(Tensor, ggml_tensor, type)
FIELD(Tensor, ggml_tensor, buffer)
FIELD(Tensor, ggml_tensor, ne)
FIELD(Tensor, ggml_tensor, nb)
FIELD(Tensor, ggml_tensor, op)
FIELD(Tensor, ggml_tensor, op_params)
FIELD(Tensor, ggml_tensor, src)
FIELD(Tensor, ggml_tensor, view_src)
FIELD(Tensor, ggml_tensor, data)

SIZE(TypeTraitsCpu, ggml_type_traits_cpu)
FIELD(TypeTraitsCpu, ggml_type_traits_cpu, from_float)
FIELD(TypeTraitsCpu, ggml_type_traits_cpu, vec_dot_type)

VALUE(f32, GGML_TYPE_F32)
VALUE(f16, GGML_TYPE_F16)
VALUE(q4_0, GGML_TYPE_Q4_0)
VALUE(q4_1, GGML_TYPE_Q4_1)
VALUE(q5_0, GGML_TYPE_Q5_0)
VALUE(q5_1, GGML_TYPE_Q5_1)
VALUE(q8_0, GGML_TYPE_Q8_0)
VALUE(q8_1, GGML_TYPE_Q8_1)
VALUE(q2_k, GGML_TYPE_Q2_K)
VALUE(q3_k, GGML_TYPE_Q3_K)
VALUE(q4_k, GGML_TYPE_Q4_K)
VALUE(q5_k, GGML_TYPE_Q5_K)
VALUE(q6_k, GGML_TYPE_Q6_K)
VALUE(q8_k, GGML_TYPE_Q8_K)
VALUE(iq4_nl, GGML_TYPE_IQ4_NL)
VALUE(iq4_xs, GGML_TYPE_IQ4_XS)
VALUE(bf16, GGML_TYPE_BF16)
VALUE(mxfp4, GGML_TYPE_MXFP4)
VALUE(device_type_cpu, GGML_BACKEND_DEVICE_TYPE_CPU)
"""


def _llama_include() -> Path:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("llama-cpp-python") or ():
            if file.name == "llama.h":
                return Path(str(file.locate())).parent
    pytest.fail("llama.h is not among the files of an installed llama-cpp-python: nothing to check llama_api.h against")


def _compile(ours: Path, tmp_path: Path, check: str = CHECK) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "check.cpp"
    source.write_text(check, encoding="utf-8")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    include = [f"-I{ours}", f"-I{_llama_include()}"]
    command = [*compiler, "-std=c++17", "-fsyntax-only", *include, str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_declarations_match_llama_h(tmp_path: Path) -> None:
    result = _compile(HEADER.parent, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("original", "altered", "complaint"),
    [
        pytest.param(
            "llama_memory_seq_rm, (llama_memory_i *, int32_t, int32_t, int32_t)",
            "llama_memory_seq_rm, (llama_memory_i *, int32_t, int32_t)",
            "llama_memory_seq_rm differs from llama.h",
            id="parameter dropped",
        ),
        pytest.param(
            "ggml_row_size, (int32_t, int64_t)",
            "ggml_row_size, (int32_t, int32_t)",
            "ggml_row_size differs from llama.h",
            id="parameter narrowed",
        ),
        pytest.param(
            "X(uint32_t, llama_n_ctx,",
            "X(int32_t, llama_n_ctx,",
            "llama_n_ctx differs from llama.h",
            id="result of other sign",
        ),
        pytest.param(
            "gguf_free, (gguf_context *)",
            "gguf_free, (ggml_context *)",
            "gguf_free differs from llama.h",
            id="pointer to another type",
        ),
        pytest.param(
            "int32_t * token;\n    float * embd;",
            "float * embd;\n    int32_t * token;",
            "llama_batch.token differs from llama.h",
            id="fields swapped",
        ),
        pytest.param(
            "    int8_t * logits;\n",
            "    int8_t * logits;\n    int8_t * extra;\n",
            "llama_batch differs in size from llama.h",
            id="field added",
        ),
    ],
)
def test_a_break_is_caught(original: str, altered: str, complaint: str, tmp_path: Path) -> None:
    text = HEADER.read_text(encoding="utf-8")
    assert text.count(original) == 1
    (tmp_path / HEADER.name).write_text(text.replace(original, altered), encoding="utf-8")
    result = _compile(tmp_path, tmp_path)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_the_rpc_protocol_is_that_of_the_header() -> None:
    header = (_llama_include() / "ggml-rpc.h").read_text(encoding="utf-8")
    numbers = dict(re.findall(r"#define RPC_PROTO_(\w+)_VERSION\s+(\d+)", header))
    assert (int(numbers["MAJOR"]), int(numbers["MINOR"])) == rpc._PROTOCOL


def test_what_the_kernels_know_of_ggml_matches_its_headers(tmp_path: Path) -> None:
    done = _compile(HEADER.parent / "cpu_backend", tmp_path, GGML_CHECK)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("size_t view_offs;", "int32_t view_offs; int32_t more[3];", "Tensor differs in size"),
        ("int32_t op_params[16];", "int32_t op_params[18];", "Tensor.op_params differs"),
        ("q4_k = 12", "q4_k = 13", "q4_k differs"),
    ],
)
def test_ggml_declarations_that_differ_are_found(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    header = (HEADER.parent / "cpu_backend" / "ggml_api.h").read_text(encoding="utf-8")
    assert was in header
    (tmp_path / "ggml_api.h").write_text(header.replace(was, becomes), encoding="utf-8")
    done = _compile(tmp_path, tmp_path, GGML_CHECK)
    assert done.returncode != 0
    assert said in done.stderr
