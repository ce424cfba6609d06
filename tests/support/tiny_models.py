"""Tiny GGUF models with random weights, one for each kind of model that the package treats differently.

`make` writes one by name, `split_gguf` cuts one into several files. The weights come from a seed, the tokenizer is
the same for all: token ids 0 to 255 are the bytes, then come the merges, BOS and EOS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np

N_LAYER = 2
N_EMBD = 64
N_FF = 128
N_HEAD = 4
N_HEAD_KV = 2
HEAD = N_EMBD // N_HEAD
N_EMBD_KV = HEAD * N_HEAD_KV
N_EXPERT = 4
N_CTX = 2048
SLIDING_WINDOW = 16

MERGES = [
    *("Ġ t", "h e", "Ġt he", "Ġ a", "i n", "e r", "a n", "o n", "r e", "Ġ s", "a t", "e n", "o r", "Ġ w", "e s"),
    *("i s", "i t", "o u", "Ġa n", "Ġan d", "n d", "Ġ o", "Ġo f", "Ġt o", "Ġ b", "a l", "Ġ i", "Ġi n", "in g", "e d"),
    *("Ġ c", "Ġ m", "Ġ f", "l e", "Ġ h", "Ġ p", "a r", "s t", "l l", "o m", "v e", "Ġ d"),
]
BOS = 256 + len(MERGES)
EOS = BOS + 1
N_VOCAB = EOS + 1

# Small embeddings and sharp attention keep greedy text from repeating one token; the output norm makes up for the
# small logits that a small embedding table gives.
GAIN = {
    **dict.fromkeys(("token_embd", "output"), 0.25),
    **dict.fromkeys(("output_norm", "token_embd_norm"), 4.0),
    **dict.fromkeys(("attn_q", "attn_k", "attn_qkv", "attn_q_norm", "attn_k_norm"), 2.0),
    **dict.fromkeys(("attn_q_b", "attn_k_b", "attn_v_b"), 3.0),
}

Tensors = Mapping[str, tuple[int, ...]]
Value = bool | int | float | list[int]

# Tensors of one layer, as (rows, columns): the columns are the input of a matrix.
ATTENTION = {
    "attn_norm.weight": (N_EMBD,),
    "attn_q.weight": (N_EMBD, N_EMBD),
    "attn_k.weight": (N_EMBD_KV, N_EMBD),
    "attn_v.weight": (N_EMBD_KV, N_EMBD),
    "attn_output.weight": (N_EMBD, N_EMBD),
}
QKV_BIAS = {"attn_q.bias": (N_EMBD,), "attn_k.bias": (N_EMBD_KV,), "attn_v.bias": (N_EMBD_KV,)}
QK_NORM = {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
FFN = {
    "ffn_norm.weight": (N_EMBD,),
    "ffn_gate.weight": (N_FF, N_EMBD),
    "ffn_up.weight": (N_FF, N_EMBD),
    "ffn_down.weight": (N_EMBD, N_FF),
}
POST_NORM = {"post_attention_norm.weight": (N_EMBD,), "post_ffw_norm.weight": (N_EMBD,)}
EXPERTS = {
    "ffn_norm.weight": (N_EMBD,),
    "ffn_gate_inp.weight": (N_EXPERT, N_EMBD),
    "ffn_gate_exps.weight": (N_EXPERT, N_FF, N_EMBD),
    "ffn_up_exps.weight": (N_EXPERT, N_FF, N_EMBD),
    "ffn_down_exps.weight": (N_EXPERT, N_EMBD, N_FF),
}
# Queries, keys and values in one matrix.
FUSED_ATTENTION = {
    "attn_norm.weight": (N_EMBD,),
    "attn_qkv.weight": (N_EMBD + 2 * N_EMBD_KV, N_EMBD),
    "attn_output.weight": (N_EMBD, N_EMBD),
}
FUSED_FFN = {"ffn_norm.weight": (N_EMBD,), "ffn_up.weight": (2 * N_FF, N_EMBD), "ffn_down.weight": (N_EMBD, N_FF)}
GPT2 = {
    **FUSED_ATTENTION,
    **FUSED_FFN,
    "ffn_up.weight": (N_FF, N_EMBD),
    "attn_norm.bias": (N_EMBD,),
    "attn_qkv.bias": (N_EMBD + 2 * N_EMBD_KV,),
    "attn_output.bias": (N_EMBD,),
    "ffn_norm.bias": (N_EMBD,),
    "ffn_up.bias": (N_FF,),
    "ffn_down.bias": (N_EMBD,),
}
GPT_OSS = {
    **ATTENTION,
    **QKV_BIAS,
    **{name: shape for name, shape in EXPERTS.items() if name != "ffn_norm.weight"},
    "attn_output.bias": (N_EMBD,),
    "attn_sinks.weight": (N_HEAD,),
    "post_attention_norm.weight": (N_EMBD,),
    "ffn_gate_inp.bias": (N_EXPERT,),
    "ffn_gate_exps.bias": (N_EXPERT, N_FF),
    "ffn_up_exps.bias": (N_EXPERT, N_FF),
    "ffn_down_exps.bias": (N_EXPERT, N_EMBD),
}
# Multi-head latent attention, as in DeepSeek V2 and V3: the KV cache holds LATENT and ROPE values per token.
LATENT, ROPE, Q_RANK = 32, HEAD, 24
LATENT_ATTENTION = {
    "attn_norm.weight": (N_EMBD,),
    "attn_q_a.weight": (Q_RANK, N_EMBD),
    "attn_q_a_norm.weight": (Q_RANK,),
    "attn_q_b.weight": (N_HEAD * 2 * HEAD, Q_RANK),
    "attn_kv_a_mqa.weight": (LATENT + ROPE, N_EMBD),
    "attn_kv_a_norm.weight": (LATENT,),
    "attn_k_b.weight": (N_HEAD, LATENT, HEAD),
    "attn_v_b.weight": (N_HEAD, HEAD, LATENT),
    "attn_output.weight": (N_EMBD, N_EMBD),
}
# Gemma 3n looks up a second table by token id, in every layer. Its sizes are constants of llama.cpp.
ALTUP, LAUREL, PER_LAYER = 4, 64, 256
GEMMA3N = {
    **ATTENTION,
    **QK_NORM,
    **FFN,
    **POST_NORM,
    "inp_gate.weight": (PER_LAYER, N_EMBD),
    "proj.weight": (N_EMBD, PER_LAYER),
    "post_norm.weight": (N_EMBD,),
    "altup_correct_coef.weight": (ALTUP, ALTUP),
    "altup_correct_scale.weight": (N_EMBD,),
    "altup_predict_coef.weight": (ALTUP * ALTUP, ALTUP),
    "altup_router.weight": (ALTUP, N_EMBD),
    "altup_router_norm.weight": (N_EMBD,),
    "laurel_l.weight": (LAUREL, N_EMBD),
    "laurel_r.weight": (N_EMBD, LAUREL),
    "laurel_post_norm.weight": (N_EMBD,),
}
SHARED_EXPERTS = {
    **EXPERTS,
    "ffn_gate_shexp.weight": (N_FF, N_EMBD),
    "ffn_up_shexp.weight": (N_FF, N_EMBD),
    "ffn_down_shexp.weight": (N_EMBD, N_FF),
}
SHORT_CONV = {
    "attn_norm.weight": (N_EMBD,),
    "shortconv.conv.weight": (N_EMBD, 3),
    "shortconv.in_proj.weight": (3 * N_EMBD, N_EMBD),
    "shortconv.out_proj.weight": (N_EMBD, N_EMBD),
}
SSM_INNER, SSM_STATE, SSM_RANK, SSM_CONV = 2 * N_EMBD, 16, 4, 4
SSM = {
    "attn_norm.weight": (N_EMBD,),
    "ssm_in.weight": (2 * SSM_INNER, N_EMBD),
    "ssm_conv1d.weight": (SSM_INNER, SSM_CONV),
    "ssm_conv1d.bias": (SSM_INNER,),
    "ssm_x.weight": (SSM_RANK + 2 * SSM_STATE, SSM_INNER),
    "ssm_dt.weight": (SSM_INNER, SSM_RANK),
    "ssm_dt.bias": (SSM_INNER,),
    "ssm_a": (SSM_INNER, SSM_STATE),
    "ssm_d": (SSM_INNER,),
    "ssm_out.weight": (N_EMBD, SSM_INNER),
}
BERT = {
    **{name: shape for name, shape in ATTENTION.items() if name != "attn_norm.weight"},
    "attn_output_norm.weight": (N_EMBD,),
    "attn_output_norm.bias": (N_EMBD,),
    "ffn_up.weight": (N_FF, N_EMBD),
    "ffn_down.weight": (N_EMBD, N_FF),
    "layer_output_norm.weight": (N_EMBD,),
    "layer_output_norm.bias": (N_EMBD,),
}
T5_ATTENTION = {"attn_norm.weight": (N_EMBD,), **{f"attn_{part}.weight": (N_EMBD, N_EMBD) for part in "qkvo"}}
T5_ENCODER = {**T5_ATTENTION, "attn_rel_b.weight": (32, N_HEAD), **FFN}
T5_DECODER = {**T5_ENCODER, **{f"cross_{name}": shape for name, shape in T5_ATTENTION.items()}}


def _layers(*kinds: Tensors, prefix: str = "blk") -> Tensors:
    """N_LAYER layers that take the kinds in turn."""
    return {f"{prefix}.{i}.{name}": shape for i in range(N_LAYER) for name, shape in kinds[i % len(kinds)].items()}


def _decoder(*kinds: Tensors) -> Tensors:
    return _layers(*kinds) | {"output_norm.weight": (N_EMBD,)}


@dataclass(frozen=True)
class _Model:
    arch: str
    what: str  # what the package might trip over in it
    tensors: Tensors
    keys: Mapping[str, Value] = field(default_factory=dict)


OUTPUT = {"output.weight": (N_VOCAB, N_EMBD)}
MOE = {"expert_count": N_EXPERT, "expert_used_count": 2, "expert_feed_forward_length": N_FF}
_SLIDING = {"attention.sliding_window": SLIDING_WINDOW, "attention.sliding_window_pattern": 2}

_MODELS = {
    "llama": _Model("llama", "output tied to the embeddings", _decoder(ATTENTION | FFN)),
    "llama-untied": _Model("llama", "output of its own", _decoder(ATTENTION | FFN) | OUTPUT),
    "qwen2": _Model("qwen2", "biases on queries, keys and values", _decoder(ATTENTION | QKV_BIAS | FFN)),
    "phi3": _Model("phi3", "fused projections", _decoder(FUSED_ATTENTION | FUSED_FFN)),
    "gpt2": _Model(
        "gpt2",
        "learned positions, no rotary ones",
        _decoder(GPT2) | {"output_norm.bias": (N_EMBD,), "position_embd.weight": (N_CTX, N_EMBD)},
        {"attention.layer_norm_epsilon": 1e-6},
    ),
    "gpt-oss": _Model(
        "gpt-oss",
        "experts, attention sinks, sliding windows",
        _decoder(GPT_OSS) | OUTPUT,
        {**MOE, "attention.sliding_window": SLIDING_WINDOW},
    ),
    "deepseek2": _Model(
        "deepseek2",
        "latent attention, experts after a dense layer",
        _layers(LATENT_ATTENTION | FFN, LATENT_ATTENTION | SHARED_EXPERTS) | {"output_norm.weight": (N_EMBD,)},
        {
            **MOE,
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": Q_RANK,
            "attention.kv_lora_rank": LATENT,
            "attention.key_length": LATENT + ROPE,
            "attention.value_length": LATENT,
            "attention.key_length_mla": 2 * HEAD,
            "attention.value_length_mla": HEAD,
            "rope.dimension_count": ROPE,
        },
    ),
    "qwen3": _Model("qwen3", "norms on queries and keys", _decoder(ATTENTION | QK_NORM | FFN)),
    "qwen3moe": _Model(
        "qwen3moe",
        "experts",
        _decoder(ATTENTION | QK_NORM | EXPERTS),
        MOE,
    ),
    "gemma2": _Model(
        "gemma2",
        "scaled embeddings, sliding windows, capped logits",
        _decoder(ATTENTION | FFN | POST_NORM),
        {**_SLIDING, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": _Model(
        "gemma3",
        "scaled embeddings, sliding windows",
        _decoder(ATTENTION | QK_NORM | FFN | POST_NORM),
        _SLIDING,
    ),
    "gemma3n": _Model(
        "gemma3n",
        "a table of inputs to every layer",
        _decoder(GEMMA3N)
        | {
            "altup_proj.weight": (ALTUP - 1, N_EMBD, N_EMBD),
            "altup_unembd_proj.weight": (ALTUP - 1, N_EMBD, N_EMBD),
            "per_layer_token_embd.weight": (N_VOCAB, PER_LAYER * N_LAYER),
            "per_layer_model_proj.weight": (PER_LAYER * N_LAYER, N_EMBD),
            "per_layer_proj_norm.weight": (PER_LAYER,),
        },
        {"attention.sliding_window": SLIDING_WINDOW},
    ),
    "granite": _Model(
        "granite",
        "embeddings scaled by a value of its metadata",
        _decoder(ATTENTION | FFN),
        {"embedding_scale": 6.0, "residual_scale": 0.5, "attention.scale": 0.25, "logit_scale": 2.0},
    ),
    "qwen2vl": _Model(
        "qwen2vl",
        "four positions per token",
        _decoder(ATTENTION | QKV_BIAS | FFN),
        {"rope.dimension_sections": [2, 3, 3, 0]},
    ),
    "mamba": _Model(
        "mamba",
        "recurrent",
        _decoder(SSM),
        {
            "attention.head_count": 0,
            "attention.head_count_kv": 0,
            "ssm.conv_kernel": SSM_CONV,
            "ssm.inner_size": SSM_INNER,
            "ssm.state_size": SSM_STATE,
            "ssm.time_step_rank": SSM_RANK,
        },
    ),
    # A layer without key-value heads is a convolution.
    "lfm2": _Model(
        "lfm2",
        "convolutions and attention in turn",
        _layers(SHORT_CONV | FFN, ATTENTION | QK_NORM | FFN) | {"token_embd_norm.weight": (N_EMBD,)},
        {"attention.head_count_kv": [0, N_HEAD_KV], "shortconv.l_cache": 3},
    ),
    "bert": _Model(
        "bert",
        "encoder",
        {
            "token_types.weight": (2, N_EMBD),
            "position_embd.weight": (N_CTX, N_EMBD),
            "token_embd_norm.weight": (N_EMBD,),
            "token_embd_norm.bias": (N_EMBD,),
            **_layers(BERT),
        },
        {"attention.layer_norm_epsilon": 1e-6, "attention.causal": False},
    ),
    "t5": _Model(
        "t5",
        "encoder and decoder",
        {
            **_layers(T5_ENCODER, prefix="enc.blk"),
            "enc.output_norm.weight": (N_EMBD,),
            **_layers(T5_DECODER, prefix="dec.blk"),
            "dec.output_norm.weight": (N_EMBD,),
        },
        {"attention.head_count_kv": N_HEAD, "attention.relative_buckets_count": 32, "decoder_start_token_id": BOS},
    ),
}

NAMES: tuple[str, ...] = tuple(_MODELS)


def describe(name: str) -> tuple[str, str]:
    """The architecture of a model, and what is particular about it."""
    return _MODELS[name].arch, _MODELS[name].what


def make(name: str, path: Path, *, seed: int = 0, chat_template: str | None = None) -> Path:
    """Writes the model called `name` to `path` and returns `path`."""
    model = _MODELS[name]
    writer = gguf.GGUFWriter(path, model.arch)
    keys = {
        "context_length": N_CTX,
        "embedding_length": N_EMBD,
        "block_count": N_LAYER,
        "feed_forward_length": N_FF,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": N_HEAD_KV,
        "attention.layer_norm_rms_epsilon": 1e-6,
        **model.keys,
    }
    for key, value in keys.items():
        _add_key(writer, f"{model.arch}.{key}", value)
    _add_tokenizer(writer)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    rng = np.random.default_rng(seed)
    for tensor, shape in {"token_embd.weight": (N_VOCAB, N_EMBD), **model.tensors}.items():
        writer.add_tensor(tensor, _weights(rng, tensor, shape))
    _write(writer)
    return path


def split_gguf(path: Path, out_dir: Path, n: int) -> Path:
    """Writes the model at `path` as `n` files into `out_dir` and returns the first, which holds no embedding table."""
    reader = gguf.GGUFReader(path)
    # The sort is stable: all but the embedding table keep their places.
    tensors = sorted(reader.tensors, key=lambda tensor: tensor.name == "token_embd.weight")
    if not 2 <= n <= len(tensors):
        raise ValueError(f"cannot split {len(tensors)} tensors into {n} files")
    arch = reader.fields["general.architecture"].contents()
    files = [out_dir / f"{path.stem}-{i + 1:05d}-of-{n:05d}.gguf" for i in range(n)]
    for i, file in enumerate(files):
        writer = gguf.GGUFWriter(file, arch)
        if i == 0:
            for key, entry in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    writer.add_key_value(key, entry.contents(), entry.types[0], entry.types[-1])
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", n)
        writer.add_int32("split.tensors.count", len(tensors))
        for tensor in tensors[i * len(tensors) // n : (i + 1) * len(tensors) // n]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        _write(writer)
    return files[0]


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_key(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    tokens = [*_byte_symbols(), *(merge.replace(" ", "") for merge in MERGES), "<s>", "</s>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([normal] * BOS + [control] * 2)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)
    writer.add_token_type_count(2)  # encoders refuse to load without it


def _byte_symbols() -> list[str]:
    """GPT-2's characters for the 256 bytes: printable ones stand for themselves, the rest follow from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _weights(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith(".ssm_a"):
        return -np.exp(noise)  # a decay rate: above zero the state would grow without bound
    if not name.endswith(".weight"):
        return noise * np.float32(0.1)
    spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
    centre = 1.0 if len(shape) == 1 else 0.0
    return (centre + spread * noise).astype(np.float32) * np.float32(GAIN.get(name.split(".")[-2], 1.0))


def make_lora(path: Path, *, rank: int = 2, seed: int = 1) -> Path:
    """Writes a LoRA adapter for the model called llama to `path` and returns `path`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    rng = np.random.default_rng(seed)
    for layer in range(N_LAYER):
        base = f"blk.{layer}.attn_q.weight"
        writer.add_tensor(f"{base}.lora_a", rng.normal(size=(rank, N_EMBD)).astype(np.float32))
        writer.add_tensor(f"{base}.lora_b", rng.normal(size=(N_EMBD, rank)).astype(np.float32))
    _write(writer)
    return path


def make_control_vector(path: Path, directions: dict[int, np.ndarray]) -> Path:
    """Writes a control vector with directions by layer to `path` and returns `path`."""
    writer = gguf.GGUFWriter(path, "controlvector")
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    _write(writer)
    return path
