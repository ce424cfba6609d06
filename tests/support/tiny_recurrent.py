"""Tensors and metadata of the tiny models with recurrent layers, alone or in turn with attention."""

from __future__ import annotations

from tiny_architectures import (
    ATTENTION,
    DEEP,
    EXPERT_BIAS,
    EXPERTS,
    FFN,
    FUSED_ATTENTION,
    FUSED_FFN,
    GATED_EXPERTS,
    GRANITE,
    HEAD,
    LATENT,
    LATENT_ATTENTION,
    MOE,
    N_DEEP,
    N_EMBD,
    N_FF,
    N_HEAD,
    N_HEAD_KV,
    OUTPUT,
    POST_NORM,
    QK_NORM,
    ROPE,
    SECTIONS,
    SHARED_EXPERTS,
    SIGMOID,
    Model,
    Tensors,
    decoder,
    layers,
    without,
)

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
SSM_KEYS = {
    "ssm.conv_kernel": SSM_CONV,
    "ssm.inner_size": SSM_INNER,
    "ssm.state_size": SSM_STATE,
    "ssm.time_step_rank": SSM_RANK,
}
SSM_NORMED = {
    **SSM,
    "ssm_dt_norm.weight": (SSM_RANK,),
    "ssm_b_norm.weight": (SSM_STATE,),
    "ssm_c_norm.weight": (SSM_STATE,),
}
# Mamba 2: SSM_RANK heads, whose inputs and outputs to the state are shared by groups.
GROUPS = 2
SSM2_CONV = SSM_INNER + 2 * GROUPS * SSM_STATE
SSM2 = {
    "attn_norm.weight": (N_EMBD,),
    "ssm_in.weight": (SSM_INNER + SSM2_CONV + SSM_RANK, N_EMBD),
    "ssm_conv1d.weight": (SSM2_CONV, SSM_CONV),
    "ssm_conv1d.bias": (SSM2_CONV,),
    "ssm_dt.bias": (SSM_RANK,),
    "ssm_a": (SSM_RANK, 1),
    "ssm_d": (SSM_RANK, 1),
    "ssm_norm.weight": (GROUPS, SSM_INNER // GROUPS),
    "ssm_out.weight": (N_EMBD, SSM_INNER),
}
SSM2_KEYS = {**SSM_KEYS, "ssm.group_count": GROUPS}
# PLaMo 2 has Mamba 2's heads without groups; its step sizes come from PLAMO2_STEP values, a constant of llama.cpp.
PLAMO2_STEP = 64
PLAMO2_REST = {**FUSED_FFN, "post_attention_norm": (N_EMBD,), "post_ffw_norm": (N_EMBD,)}
PLAMO2_SSM = {
    "attn_norm.weight": (N_EMBD,),
    "ssm_in.weight": (2 * SSM_INNER, N_EMBD),
    "ssm_conv1d.weight": (SSM_INNER, SSM_CONV),
    "ssm_x.weight": (PLAMO2_STEP + 2 * SSM_STATE, SSM_INNER),
    "ssm_dt.weight": (SSM_RANK, PLAMO2_STEP),
    "ssm_dt.bias": (SSM_RANK,),
    "ssm_a": (SSM_RANK,),
    "ssm_d": (SSM_RANK,),
    "ssm_out.weight": (N_EMBD, SSM_INNER),
    "ssm_dt_norm": (PLAMO2_STEP,),
    "ssm_b_norm": (SSM_STATE,),
    "ssm_c_norm": (SSM_STATE,),
    **PLAMO2_REST,
}
PLAMO2_ATTENTION = {
    **FUSED_ATTENTION,
    "attn_q_norm.weight": (N_HEAD, HEAD),
    "attn_k_norm.weight": (N_HEAD_KV, HEAD),
    **PLAMO2_REST,
}
# Qwen's gated delta net: GROUPS heads of keys, SSM_RANK heads of values.
DELTA_INNER = SSM_STATE * SSM_RANK
DELTA_CONV = DELTA_INNER + 2 * SSM_STATE * GROUPS
DELTA_NET = {
    "attn_norm.weight": (N_EMBD,),
    "attn_qkv.weight": (DELTA_CONV, N_EMBD),
    "attn_gate.weight": (DELTA_INNER, N_EMBD),
    "ssm_conv1d.weight": (DELTA_CONV, SSM_CONV),
    "ssm_dt.bias": (SSM_RANK,),
    "ssm_a": (SSM_RANK,),
    "ssm_norm.weight": (SSM_STATE,),
    "ssm_out.weight": (N_EMBD, DELTA_INNER),
}
STEPS_APART = {"ssm_beta.weight": (SSM_RANK, N_EMBD), "ssm_alpha.weight": (SSM_RANK, N_EMBD)}
STEPS_FUSED = {"ssm_ba.weight": (2 * SSM_RANK, N_EMBD)}
GATED_ATTENTION = {**ATTENTION, **QK_NORM, "attn_q.weight": (2 * N_EMBD, N_EMBD)}
# The norm before the feed-forward bears the other name here.
QWEN_NORM = {"post_attention_norm.weight": POST_NORM["post_attention_norm.weight"]}
QWEN_FFN = {**QWEN_NORM, **without(FFN, "ffn_norm.weight")}
QWEN_EXPERTS = {
    **QWEN_NORM,
    **without(SHARED_EXPERTS, "ffn_norm.weight"),
    "ffn_gate_inp_shexp.weight": (N_EMBD,),
}
DELTA_KEYS = {
    **DEEP,
    **SSM2_KEYS,
    "ssm.inner_size": DELTA_INNER,
    "full_attention_interval": 2,
    "attention.key_length": HEAD,
    "attention.value_length": HEAD,
    "rope.dimension_count": HEAD,
}
SHARED_MOE = {**MOE, "expert_shared_feed_forward_length": N_FF}
# Kimi's delta attention has convolutions of its own for queries, keys and values, and a decay for every value.
KDA = {
    "attn_norm.weight": (N_EMBD,),
    **{f"ssm_conv1d_{part}.weight": (N_EMBD, 1, SSM_CONV) for part in "qkv"},
    **{f"attn_{part}.weight": (N_EMBD, N_EMBD) for part in "qkv"},
    "ssm_f_a.weight": (HEAD, N_EMBD),
    "ssm_f_b.weight": (N_EMBD, HEAD),
    "ssm_beta.weight": (N_HEAD, N_EMBD),
    "ssm_a": (N_HEAD, 1),
    "ssm_dt.bias": (N_EMBD,),
    "ssm_g_a.weight": (HEAD, N_EMBD),
    "ssm_g_b.weight": (N_EMBD, HEAD),
    "ssm_norm.weight": (HEAD,),
    "attn_output.weight": (N_EMBD, N_EMBD),
}
KIMI_ATTENTION = {
    **{name: shape for name, shape in LATENT_ATTENTION.items() if not name.startswith("attn_q_")},
    "attn_q.weight": (N_HEAD * 2 * HEAD, N_EMBD),
}
# llama.cpp's kernel reads heads in steps of up to 64 values, past the end of smaller ones.
LORA, WKV_HEAD = 8, 64
RWKV7 = {
    **{f"{norm}.{part}": (N_EMBD,) for norm in ("attn_norm", "attn_norm_2") for part in ("weight", "bias")},
    **{f"time_mix_{x}0.weight": (N_EMBD,) for x in "wav"},
    **{f"time_mix_{x}1.weight": (LORA, N_EMBD) for x in "wavg"},
    **{f"time_mix_{x}2.weight": (N_EMBD, LORA) for x in "wavg"},
    "time_mix_lerp_fused.weight": (6, 1, 1, N_EMBD),
    **{f"time_mix_{x}.weight": (N_EMBD,) for x in ("k_k", "k_a", "r_k")},
    **{f"time_mix_{x}.weight": (N_EMBD, N_EMBD) for x in ("key", "value", "receptance", "output")},
    **{f"time_mix_ln.{part}": (N_EMBD,) for part in ("weight", "bias")},
    "channel_mix_lerp_k.weight": (N_EMBD,),
    "channel_mix_key.weight": (N_FF, N_EMBD),
    "channel_mix_value.weight": (N_EMBD, N_FF),
}
# A layer without key-value heads is recurrent.
ALONE = {"attention.head_count": 0, "attention.head_count_kv": 0}
IN_TURN = {**DEEP, "attention.head_count_kv": [0, N_HEAD_KV] * (N_DEEP // 2)}
LFM2_NORM = {"token_embd_norm.weight": (N_EMBD,)}
# Nemotron H has one thing in each layer: no feed-forward behind attention or state.
NEMOTRON_FFN = {"attn_norm.weight": (N_EMBD,), **without(FFN, "ffn_norm.weight", "ffn_gate.weight")}
NEMOTRON_EXPERTS = {
    "attn_norm.weight": (N_EMBD,),
    **without(GATED_EXPERTS, "ffn_norm.weight", "ffn_gate_exps.weight", "ffn_gate_shexp.weight"),
}
NEMOTRON_KEYS = {
    **DEEP,
    **SSM2_KEYS,
    "attention.head_count_kv": [0, N_HEAD_KV, 0, 0],
    "feed_forward_length": [0, 0, N_FF, 0],
    "attention.layer_norm_epsilon": 1e-6,
}


def _in_turn(recurrent: Tensors, attention: Tensors) -> Tensors:
    return decoder(recurrent, attention, n=N_DEEP)


RECURRENT = {
    "mamba": Model("mamba", "recurrent", decoder(SSM), {**ALONE, **SSM_KEYS}),
    "mamba2": Model("mamba2", "recurrent, states in heads", decoder(SSM2, n=N_DEEP), {**DEEP, **ALONE, **SSM2_KEYS}),
    "rwkv7": Model(
        "rwkv7",
        "recurrent, mixes every token with the one before",
        decoder(RWKV7, n=N_DEEP)
        | {f"{norm}.{part}": (N_EMBD,) for norm in ("token_embd_norm", "output_norm") for part in ("weight", "bias")}
        | OUTPUT,
        {
            **DEEP,
            **ALONE,
            "attention.layer_norm_epsilon": 1e-5,
            "wkv.head_size": WKV_HEAD,
            "token_shift_count": 2,
            **{f"attention.{part}_lora_rank": LORA for part in ("decay", "iclr", "value_residual_mix", "gate")},
        },
    ),
    "lfm2": Model(
        "lfm2",
        "convolutions and attention in turn",
        layers(SHORT_CONV | FFN, ATTENTION | QK_NORM | FFN) | LFM2_NORM,
        {"attention.head_count_kv": [0, N_HEAD_KV], "shortconv.l_cache": 3},
    ),
    "lfm2moe": Model(
        "lfm2moe",
        "convolutions and attention in turn, experts after two dense layers",
        layers(
            *(SHORT_CONV | FFN, ATTENTION | QK_NORM | FFN),
            *(SHORT_CONV | EXPERTS | EXPERT_BIAS, ATTENTION | QK_NORM | EXPERTS | EXPERT_BIAS),
            n=N_DEEP,
        )
        | LFM2_NORM,
        {**IN_TURN, **MOE, **SIGMOID, "leading_dense_block_count": 2, "shortconv.l_cache": 3},
    ),
    "jamba": Model(
        "jamba",
        "recurrent layers and attention in turn, the latter with experts",
        _in_turn(SSM_NORMED | FFN, ATTENTION | EXPERTS) | OUTPUT,
        {**IN_TURN, **SSM_KEYS, **MOE},
    ),
    "granitehybrid": Model(
        "granitehybrid",
        "recurrent layers and attention in turn, scaled embeddings",
        _in_turn(SSM2 | FFN, ATTENTION | FFN),
        {**IN_TURN, **SSM2_KEYS, **GRANITE},
    ),
    "granitehybrid-moe": Model(
        "granitehybrid",
        "recurrent layers and attention in turn, scaled embeddings, experts",
        _in_turn(SSM2 | SHARED_EXPERTS, ATTENTION | SHARED_EXPERTS),
        {**IN_TURN, **SSM2_KEYS, **GRANITE, **SHARED_MOE},
    ),
    "nemotron_h": Model(
        "nemotron_h",
        "layers that are recurrent, attention or feed-forward",
        decoder(SSM2, ATTENTION, NEMOTRON_FFN, SSM2, n=N_DEEP),
        NEMOTRON_KEYS,
    ),
    "nemotron_h_moe": Model(
        "nemotron_h_moe",
        "layers that are recurrent, attention or experts",
        decoder(SSM2, ATTENTION, NEMOTRON_EXPERTS, SSM2, n=N_DEEP),
        {**NEMOTRON_KEYS, **SHARED_MOE, **SIGMOID, "expert_shared_count": 1, "expert_weights_norm": True},
    ),
    "falcon-h1": Model(
        "falcon-h1",
        "recurrence and attention side by side in every layer",
        # The norm before the feed-forward has no suffix here.
        decoder(SSM2 | ATTENTION | without(FFN, "ffn_norm.weight") | {"ffn_norm": (N_EMBD,)}, n=N_DEEP),
        {**DEEP, **SSM2_KEYS},
    ),
    "plamo2": Model(
        "plamo2",
        "recurrent layers and attention in turn",
        _in_turn(PLAMO2_SSM, PLAMO2_ATTENTION),
        {**IN_TURN, **SSM_KEYS, "ssm.group_count": 0, "attention.key_length": HEAD, "attention.value_length": HEAD},
    ),
    "kimi-linear": Model(
        "kimi-linear",
        "delta attention and latent attention in turn, experts after a dense layer",
        decoder(
            *(KDA | FFN, KIMI_ATTENTION | GATED_EXPERTS, KDA | GATED_EXPERTS, KIMI_ATTENTION | GATED_EXPERTS), n=N_DEEP
        )
        | OUTPUT,
        {
            **IN_TURN,
            **MOE,
            **SIGMOID,
            "expert_shared_count": 1,
            "leading_dense_block_count": 1,
            "attention.head_count_kv": [0, 1] * (N_DEEP // 2),
            "attention.kv_lora_rank": LATENT,
            "attention.key_length": LATENT + ROPE,
            "attention.value_length": LATENT,
            "attention.key_length_mla": 2 * HEAD,
            "attention.value_length_mla": HEAD,
            "rope.dimension_count": ROPE,
            "ssm.conv_kernel": SSM_CONV,
            "kda.head_dim": HEAD,
        },
    ),
    "qwen3next": Model(
        "qwen3next",
        "delta net and gated attention in turn, experts",
        _in_turn(DELTA_NET | STEPS_FUSED | QWEN_EXPERTS, GATED_ATTENTION | QWEN_EXPERTS),
        {**DELTA_KEYS, **SHARED_MOE},
    ),
    "qwen35": Model(
        "qwen35",
        "delta net and gated attention in turn, four positions per token",
        _in_turn(DELTA_NET | STEPS_APART | QWEN_FFN, GATED_ATTENTION | QWEN_FFN),
        {**DELTA_KEYS, **SECTIONS},
    ),
    "qwen35moe": Model(
        "qwen35moe",
        "delta net and gated attention in turn, four positions per token, experts",
        _in_turn(DELTA_NET | STEPS_APART | QWEN_EXPERTS, GATED_ATTENTION | QWEN_EXPERTS),
        {**DELTA_KEYS, **SHARED_MOE, **SECTIONS},
    ),
}
