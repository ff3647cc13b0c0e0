"""Tiny random decoders by their configuration's name in transformers: recurrent, hybrid, and attention throughout."""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
_DENSE = {"mlp_layer_types": ["dense", "dense"], "num_key_value_heads": 4}
_BOTH, _CONV = (["linear_attention", "full_attention"], ["conv", "full_attention"])

#: What keeps a state besides attention's keys and values, with what each needs to be tiny.
RECURRENT = {
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 16, "block_types": ["recurrent", "attention"]},
    "rwkv": {"context_length": 256, "attention_hidden_size": 32},
    "mamba": {"state_size": 4},
    "falcon_mamba": {"state_size": 4},
    "mamba2": {"num_heads": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_head_dim": 16,
        "head_dim": None,
        "num_key_value_heads": 4,
        "mamba_d_state": 4,
        "use_mamba_kernels": False,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
        "attention_head_dim": 16,
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "chunk_size": 8,
    },
    "lfm2": {"layer_types": _CONV, "block_multiple_of": 8},
    "lfm2_moe": {"layer_types": _CONV, **_EXPERTS},
    "lfm3": {"layer_types": _CONV},
    "qwen3_next": {**_LINEAR, **_EXPERTS, "layer_types": _BOTH, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": {**_LINEAR, "layer_types": _BOTH},
    "olmo_hybrid": {**_LINEAR, "layer_types": _BOTH},
    "minimax": {"layer_types": _BOTH, "block_size": 8, "num_local_experts": 2},
    "granitemoehybrid": {
        **_MAMBA,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 32,
    },
    "nemotron_h": {
        "num_hidden_layers": 4,
        "hybrid_override_pattern": "M*-M",
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "kimi_linear": {
        **_LATENT,
        **_DENSE,
        "layer_types": _BOTH,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "head_dim": None,
    },
    "bailing_hybrid": {**_LATENT, **_DENSE, "layer_types": _BOTH, "linear_num_key_heads": 4},
}
ATTENTION = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "bloom": {"n_layer": 2, "n_head": 4},
}


def tiny(name, dtype=torch.float64, vocabulary=172):
    """A decoder of few thousand weights, the same at every call."""
    options = {**SIZES, "vocab_size": vocabulary, **(RECURRENT | ATTENTION)[name]}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name](**{key: value for key, value in options.items() if value is not None})
    model = AutoModelForCausalLM.from_config(config)
    if model._can_set_experts_implementation():
        # Grouped matrix products know no float64.
        model.set_experts_implementation("eager")
    return model.to(dtype).eval()
