"""Tensors and metadata of the tiny models whose layers are all attention, and what the tables share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiny_tokenizer import BOS, N_VOCAB

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
N_DEEP = 4  # layers of the models that need more than two kinds or turns

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
EXPERT_BIAS = {"exp_probs_b.bias": (N_EXPERT,)}
GATED_EXPERTS = {**SHARED_EXPERTS, **EXPERT_BIAS}
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


OUTPUT_NORM = {"output_norm.weight": (N_EMBD,)}
OUTPUT = {"output.weight": (N_VOCAB, N_EMBD)}
MOE = {"expert_count": N_EXPERT, "expert_used_count": 2, "expert_feed_forward_length": N_FF}
DEEP = {"block_count": N_DEEP}
SECTIONS = {"rope.dimension_sections": [3, 3, 2, 0]}  # M-RoPE: positions of time, height and width
SIGMOID = {"expert_gating_func": 2}
GRANITE = {"embedding_scale": 6.0, "residual_scale": 0.5, "attention.scale": 0.25, "logit_scale": 2.0}
_SLIDING = {"attention.sliding_window": SLIDING_WINDOW, "attention.sliding_window_pattern": 2}


def without(tensors: Tensors, *names: str) -> Tensors:
    return {name: shape for name, shape in tensors.items() if name not in names}


def layers(*kinds: Tensors, n: int = N_LAYER, prefix: str = "blk") -> Tensors:
    """n layers that take the kinds in turn."""
    return {f"{prefix}.{i}.{name}": shape for i in range(n) for name, shape in kinds[i % len(kinds)].items()}


def decoder(*kinds: Tensors, n: int = N_LAYER) -> Tensors:
    return layers(*kinds, n=n) | OUTPUT_NORM


@dataclass(frozen=True)
class Model:
    arch: str
    what: str  # what the package might trip over in it
    tensors: Tensors
    keys: Mapping[str, Value] = field(default_factory=dict)


# Norms after attention and feed-forward, none before.
POST_NORMED = {**without(ATTENTION | QK_NORM | FFN, "attn_norm.weight", "ffn_norm.weight"), **POST_NORM}
GLM4_MOE = {**ATTENTION, **QKV_BIAS, **QK_NORM, "post_attention_norm.weight": (N_EMBD,)}
GLM4_MOE_KEYS = {
    **MOE,
    "leading_dense_block_count": 1,
    "expert_shared_count": 1,
    "expert_weights_norm": True,
}
GLM4_MOE_TENSORS = (
    layers(GLM4_MOE | without(FFN, "ffn_norm.weight"), GLM4_MOE | without(GATED_EXPERTS, "ffn_norm.weight"))
    | OUTPUT_NORM
)
# Gemma 4 has heads of their own size in its sliding layers; in the others keys serve as values too.
SLIDING_HEAD, FULL_HEAD = HEAD // 2, HEAD


def _gemma4_attention(head: int) -> Tensors:
    return {
        "attn_norm.weight": (N_EMBD,),
        "attn_q.weight": (N_HEAD * head, N_EMBD),
        "attn_k.weight": (N_HEAD_KV * head, N_EMBD),
        "attn_v.weight": (N_HEAD_KV * head, N_EMBD),
        "attn_output.weight": (N_EMBD, N_HEAD * head),
        "attn_q_norm.weight": (head,),
        "attn_k_norm.weight": (head,),
        "layer_output_scale.weight": (1,),
    }


GEMMA4_SLIDING = {**_gemma4_attention(SLIDING_HEAD), **FFN, **POST_NORM}
GEMMA4_FULL = {**_gemma4_attention(FULL_HEAD), **FFN, **POST_NORM}
GEMMA4_EXPERTS = {
    **without(EXPERTS, "ffn_norm.weight"),
    "ffn_gate_inp.scale": (N_EMBD,),
    "pre_ffw_norm_2.weight": (N_EMBD,),
    "post_ffw_norm_1.weight": (N_EMBD,),
    "post_ffw_norm_2.weight": (N_EMBD,),
}
GEMMA4_INPUTS = {"inp_gate.weight": (HEAD, N_EMBD), "proj.weight": (N_EMBD, HEAD), "post_norm.weight": (N_EMBD,)}
GEMMA4_REST = {**OUTPUT_NORM, "rope_freqs.weight": (FULL_HEAD // 2,)}
GEMMA4_KEYS = {
    **DEEP,
    "attention.sliding_window": SLIDING_WINDOW,
    "attention.sliding_window_pattern": [True, False] * (N_DEEP // 2),
    "attention.key_length": FULL_HEAD,
    "attention.value_length": FULL_HEAD,
    "attention.key_length_swa": SLIDING_HEAD,
    "attention.value_length_swa": SLIDING_HEAD,
    "rope.dimension_count": FULL_HEAD,
    "rope.dimension_count_swa": SLIDING_HEAD,
    "embedding_length_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
}

DECODERS = {
    "llama": Model("llama", "output tied to the embeddings", decoder(ATTENTION | FFN)),
    "llama-untied": Model("llama", "output of its own", decoder(ATTENTION | FFN) | OUTPUT),
    "qwen2": Model("qwen2", "biases on queries, keys and values", decoder(ATTENTION | QKV_BIAS | FFN)),
    "phi3": Model("phi3", "fused projections", decoder(FUSED_ATTENTION | FUSED_FFN)),
    "gpt2": Model(
        "gpt2",
        "learned positions, no rotary ones",
        decoder(GPT2) | {"output_norm.bias": (N_EMBD,), "position_embd.weight": (N_CTX, N_EMBD)},
        {"attention.layer_norm_epsilon": 1e-6},
    ),
    "gpt-oss": Model(
        "gpt-oss",
        "experts, attention sinks, sliding windows",
        decoder(GPT_OSS) | OUTPUT,
        {**MOE, "attention.sliding_window": SLIDING_WINDOW},
    ),
    "deepseek2": Model(
        "deepseek2",
        "latent attention, experts after a dense layer",
        layers(LATENT_ATTENTION | FFN, LATENT_ATTENTION | SHARED_EXPERTS) | OUTPUT_NORM,
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
    "qwen3": Model("qwen3", "norms on queries and keys", decoder(ATTENTION | QK_NORM | FFN)),
    "qwen3moe": Model(
        "qwen3moe",
        "experts",
        decoder(ATTENTION | QK_NORM | EXPERTS),
        MOE,
    ),
    "gemma2": Model(
        "gemma2",
        "scaled embeddings, sliding windows, capped logits",
        decoder(ATTENTION | FFN | POST_NORM),
        {**_SLIDING, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3": Model(
        "gemma3",
        "scaled embeddings, sliding windows",
        decoder(ATTENTION | QK_NORM | FFN | POST_NORM),
        _SLIDING,
    ),
    "gemma3n": Model(
        "gemma3n",
        "a table of inputs to every layer",
        decoder(GEMMA3N)
        | {
            "altup_proj.weight": (ALTUP - 1, N_EMBD, N_EMBD),
            "altup_unembd_proj.weight": (ALTUP - 1, N_EMBD, N_EMBD),
            "per_layer_token_embd.weight": (N_VOCAB, PER_LAYER * N_LAYER),
            "per_layer_model_proj.weight": (PER_LAYER * N_LAYER, N_EMBD),
            "per_layer_proj_norm.weight": (PER_LAYER,),
        },
        {"attention.sliding_window": SLIDING_WINDOW},
    ),
    "gemma4": Model(
        "gemma4",
        "two sizes of heads, keys that are values too",
        decoder(GEMMA4_SLIDING, without(GEMMA4_FULL, "attn_v.weight"), n=N_DEEP) | GEMMA4_REST,
        GEMMA4_KEYS,
    ),
    "gemma4-moe": Model(
        "gemma4",
        "two sizes of heads, experts beside a dense feed-forward",
        decoder(GEMMA4_SLIDING | GEMMA4_EXPERTS, GEMMA4_FULL | GEMMA4_EXPERTS, n=N_DEEP) | GEMMA4_REST,
        GEMMA4_KEYS | MOE,
    ),
    "gemma4-e": Model(
        "gemma4",
        "a table of inputs to every layer, layers that share keys and values",
        decoder(GEMMA4_SLIDING | GEMMA4_INPUTS, GEMMA4_FULL | GEMMA4_INPUTS, n=N_DEEP)
        | GEMMA4_REST
        | {
            "per_layer_token_embd.weight": (N_VOCAB, HEAD * N_DEEP),
            "per_layer_model_proj.weight": (HEAD * N_DEEP, N_EMBD),
            "per_layer_proj_norm.weight": (HEAD,),
        },
        {**GEMMA4_KEYS, "embedding_length_per_layer_input": HEAD, "attention.shared_kv_layers": 2},
    ),
    "granite": Model(
        "granite",
        "embeddings scaled by a value of its metadata",
        decoder(ATTENTION | FFN),
        GRANITE,
    ),
    "granitemoe": Model(
        "granitemoe",
        "experts, embeddings scaled by a value of its metadata",
        decoder(ATTENTION | SHARED_EXPERTS) | OUTPUT,
        {**MOE, **GRANITE, "expert_shared_feed_forward_length": N_FF},
    ),
    "minicpm": Model("minicpm", "embeddings scaled by a constant of llama.cpp", decoder(ATTENTION | FFN) | OUTPUT),
    "llama4": Model(
        "llama4",
        "attention in chunks, experts, a layer without rotary positions",
        decoder(ATTENTION | FFN, ATTENTION | SHARED_EXPERTS, n=N_DEEP) | OUTPUT,
        {**DEEP, **MOE, "expert_used_count": 1, "interleave_moe_layer_step": 2},
    ),
    "exaone4": Model("exaone4", "norms after the layers alone", decoder(POST_NORMED)),
    "smollm3": Model("smollm3", "a layer without rotary positions", decoder(ATTENTION | FFN, n=N_DEEP) | OUTPUT, DEEP),
    "cohere2": Model(
        "cohere2",
        "sliding windows, full layers without rotary positions",
        decoder(ATTENTION | without(FFN, "ffn_norm.weight"), n=N_DEEP),
        {**DEEP, **_SLIDING, "logit_scale": 1.0, "attention.layer_norm_epsilon": 1e-6},
    ),
    "mistral3": Model(
        "mistral3",
        "attention that sharpens with the position",
        decoder(ATTENTION | FFN),
        {"attention.temperature_scale": 0.5, "rope.scaling.original_context_length": SLIDING_WINDOW},
    ),
    "qwen2vl": Model(
        "qwen2vl",
        "four positions per token",
        decoder(ATTENTION | QKV_BIAS | FFN),
        {"rope.dimension_sections": [2, 3, 3, 0]},
    ),
    "qwen3vl": Model(
        "qwen3vl", "four positions per token", decoder(ATTENTION | QK_NORM | FFN, n=N_DEEP), {**DEEP, **SECTIONS}
    ),
    "qwen3vl-deepstack": Model(
        "qwen3vl",
        "four positions per token, embeddings wider than the model",
        decoder(ATTENTION | QK_NORM | FFN, n=N_DEEP),
        {**DEEP, **SECTIONS, "n_deepstack_layers": 2},
    ),
    "glm4moe-mrope": Model(
        "glm4moe",
        "four positions per token, sigmoid-gated experts after a dense layer",
        GLM4_MOE_TENSORS,
        {**GLM4_MOE_KEYS, **SECTIONS},
    ),
    "qwen3vlmoe": Model(
        "qwen3vlmoe", "four positions per token, experts", decoder(ATTENTION | QK_NORM | EXPERTS), {**MOE, **SECTIONS}
    ),
    "glm4": Model("glm4", "norms before and after; takes token ids alone", decoder(ATTENTION | FUSED_FFN | POST_NORM)),
    "glm4moe": Model("glm4moe", "sigmoid-gated experts; takes token ids alone", GLM4_MOE_TENSORS, GLM4_MOE_KEYS),
}

ENCODERS = {
    "bert": Model(
        "bert",
        "encoder",
        {
            "token_types.weight": (2, N_EMBD),
            "position_embd.weight": (N_CTX, N_EMBD),
            "token_embd_norm.weight": (N_EMBD,),
            "token_embd_norm.bias": (N_EMBD,),
            **layers(BERT),
        },
        {"attention.layer_norm_epsilon": 1e-6, "attention.causal": False},
    ),
    "t5": Model(
        "t5",
        "encoder and decoder",
        {
            **layers(T5_ENCODER, prefix="enc.blk"),
            "enc.output_norm.weight": (N_EMBD,),
            **layers(T5_DECODER, prefix="dec.blk"),
            "dec.output_norm.weight": (N_EMBD,),
        },
        {"attention.head_count_kv": N_HEAD, "attention.relative_buckets_count": 32, "decoder_start_token_id": BOS},
    ),
}
