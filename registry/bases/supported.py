"""The base models that are supported, and those that are refused by name.

A base belongs here once `tests/engine/vllm_plugin/test_bases.py` finds that both networks compute
it equally, dense and mixed. See the page "Adding a base model".
"""

from types import MappingProxyType

from registry.bases.base import FUSED_FFN, NORMS_OF_HEADS, PROJECTIONS, QKV_BIASES, Base, Field

SCALED_ROPES = ("default", "linear", "dynamic", "llama3", "yarn")
ATTENTION_BIAS = {"attention_bias": Field("flag", False)}
ALL_BIASES = {**QKV_BIASES, "o_proj.bias": "D"}
SANDWICH_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
NO_WINDOW = {"use_sliding_window": (False, None)}
GEMMA_DEFAULTS = {
    "tie_word_embeddings": True,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
}
GEMMA_FIELDS = {
    "attention_bias": Field("flag", False),
    "query_pre_attn_scalar": Field("number", 256),
    "sliding_window": Field("size", 4096),
}

LLAMA = Base(
    title="Llama, SmolLM2, TinyLlama and others",
    model_type="llama",
    architecture="LlamaForCausalLM",
    free_head_width=True,
    attention_biases=ALL_BIASES,
    fields=ATTENTION_BIAS,
    fixed={"mlp_bias": (False, None)},
    ropes=SCALED_ROPES,
    stock_layout="Qwen2MoeForCausalLM",
)

_BASES = (
    LLAMA,
    Base(
        title="Qwen2, Qwen2.5",
        model_type="qwen2",
        architecture="Qwen2ForCausalLM",
        attention={**PROJECTIONS, **QKV_BIASES},
        defaults={"max_position_embeddings": 32_768, "num_key_value_heads": 32},
        fixed=NO_WINDOW,
        ropes=("default", "yarn"),
        stock_layout="Qwen2MoeForCausalLM",
    ),
    Base(
        title="Qwen3",
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        free_head_width=True,
        attention={**PROJECTIONS, **NORMS_OF_HEADS},
        defaults={
            "max_position_embeddings": 32_768,
            "num_key_value_heads": 32,
            "head_dim": 128,
        },
        # vLLM's network leaves out the bias after attention, without an error.
        fixed=NO_WINDOW | {"attention_bias": (False, None)},
        ropes=("default", "yarn"),
        stock_layout="Qwen3NextForCausalLM",
    ),
    Base(
        title="Mistral",
        model_type="mistral",
        architecture="MistralForCausalLM",
        free_head_width=True,
        windows="all",
        defaults={"max_position_embeddings": 131_072, "num_key_value_heads": 8},
        fields={"sliding_window": Field("size or null", 4096)},
        stock_layout="Qwen2MoeForCausalLM",
    ),
    Base(
        title="Gemma 2",
        model_type="gemma2",
        architecture="Gemma2ForCausalLM",
        free_head_width=True,
        activation="gelu_tanh",
        activation_field="hidden_activation",
        attention_biases=ALL_BIASES,
        norms=SANDWICH_NORMS,
        ffn_norm="pre_feedforward_layernorm",
        windows="by layer",
        window_period=2,
        soft_caps=True,
        defaults=GEMMA_DEFAULTS | {"max_position_embeddings": 8192},
        fields=GEMMA_FIELDS
        | {
            "attn_logit_softcapping": Field("number or null", 50.0),
            "final_logit_softcapping": Field("number or null", 30.0),
        },
        fixed={"use_bidirectional_attention": (None, False)},
    ),
    Base(
        title="Gemma 3 (text)",
        model_type="gemma3_text",
        architecture="Gemma3ForCausalLM",
        free_head_width=True,
        activation="gelu_tanh",
        activation_field="hidden_activation",
        attention={**PROJECTIONS, **NORMS_OF_HEADS},
        attention_biases=ALL_BIASES,
        norms=SANDWICH_NORMS,
        ffn_norm="pre_feedforward_layernorm",
        windows="by layer",
        window_period=6,
        defaults=GEMMA_DEFAULTS | {"max_position_embeddings": 131_072},
        fields=GEMMA_FIELDS,
        fixed={
            "use_bidirectional_attention": (False, None),
            "attn_logit_softcapping": (None,),
            "final_logit_softcapping": (None,),
        },
        ropes=("default", "linear"),
        rope_theta=1_000_000.0,
        rope_by_layer=True,
    ),
    Base(
        title="OLMo 2",
        model_type="olmo2",
        architecture="Olmo2ForCausalLM",
        vllm="transformers",
        attention={**PROJECTIONS, "q_norm.weight": "Q", "k_norm.weight": "K"},
        attention_biases=ALL_BIASES,
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        ffn_norm=None,
        defaults={"rms_norm_eps": 1e-5},
        fields=ATTENTION_BIAS,
    ),
    Base(
        title="Phi 3",
        model_type="phi3",
        architecture="Phi3ForCausalLM",
        attention={"qkv_proj.weight": "PD", "o_proj.weight": "DQ"},
        ffn=FUSED_FFN,
        windows="all",
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
        fields={"sliding_window": Field("size or null", None)},
        partial_rotary=True,
        # Compression treats the parts of a fused layer one by one.
        int8=False,
    ),
    Base(
        title="Granite 3",
        model_type="granite",
        architecture="GraniteForCausalLM",
        attention_biases=ALL_BIASES,
        fields=ATTENTION_BIAS
        | {
            "embedding_multiplier": Field("number", 1.0),
            "attention_multiplier": Field("number", 1.0),
            "residual_multiplier": Field("number", 1.0),
            "logits_scaling": Field("number", 1.0),
        },
        fixed={"mlp_bias": (False, None)},
    ),
    Base(
        title="SmolLM3",
        model_type="smollm3",
        architecture="SmolLM3ForCausalLM",
        vllm="transformers",
        attention_biases=ALL_BIASES,
        defaults={
            "max_position_embeddings": 32_768,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
        },
        fields=ATTENTION_BIAS | {"no_rope_layers": Field("flags of layers", 4)},
        fixed={"mlp_bias": (False, None), **NO_WINDOW},
        rope_theta=2_000_000.0,
    ),
)

BASES = MappingProxyType({base.model_type: base for base in _BASES})

# Bases that people ask for, and why each is refused.
REFUSED = MappingProxyType(
    {
        "cohere2": "vLLM and transformers compute different attention windows for it",
        "gemma3": "it reads images too: send its text model, of type 'gemma3_text'",
        "qwen3_5": "its attention is partly linear",
        "gpt2": "its FFN has no gate",
        "phi": "its FFN has no gate",
        "starcoder2": "its FFN has no gate",
        "mixtral": "it is a mixture already",
        "qwen2_moe": "it is a mixture already",
        "qwen3_moe": "it is a mixture already",
    }
)
