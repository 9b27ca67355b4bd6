#!/usr/bin/env bash
# transformers 5.23.0: of a GGUF file the scaling of positions is not read, in silence, nor is Starcoder2's base.
#
# Behaviour: from_pretrained(folder, gguf_file=...) reads rope.freq_base, and leaves out rope.scaling.type with its
# factor and, for Llama 3.1 and later, the tensor rope_freqs.weight, which holds that scaling in a GGUF file. What comes
# out computes as if the model had no scaling, and its config says so: saving it again makes the loss lasting. Of
# Starcoder2 the base is not read either. Files of float32 are enough to see it; no warning is given.
# Expected (guess before the run): the logits of the model that was written to the file, or an error.
# Way round: from_pretrained(..., config=...) with the rope_parameters that the model was trained with.
#
# Output seen with gguf 0.19.0, accelerate 1.15.0, torch 2.13.0; all models have a base of 50,000:
#     llama       rope_theta  as written: yes  as without scaling: yes  base: 50,000
#     llama       linear      as written: no   as without scaling: yes  base: 50,000
#     llama       llama3      as written: no   as without scaling: yes  base: 50,000
#     qwen2       rope_theta  as written: yes  as without scaling: yes  base: 50,000
#     qwen2       yarn        as written: no   as without scaling: yes  base: 50,000
#     starcoder2  rope_theta  as written: no   as without scaling: no   base: 10,000
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 gguf==0.19.0 torch==2.13.0 accelerate==1.15.0
cd "$folder"
cat > run.py <<'PYTHON'
import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "initializer_range": 0.2}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
THETA = {"rope_type": "default", "rope_theta": 50_000.0}
LINEAR = {**THETA, "rope_type": "linear", "factor": 4.0}
YARN = {**THETA, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA = {**THETA, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA["original_max_position_embeddings"] = 64
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
ids = torch.randint(3, 64, (1, 200), generator=torch.Generator().manual_seed(1))


def model_of(kind, rope):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes, rope_parameters=dict(rope), tie_word_embeddings=False)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def name_of(name):
    part, _, end = name.rpartition(".")
    if part.startswith("model.layers."):
        number, _, part = part.removeprefix("model.layers.").partition(".")
        return f"blk.{number}.{NAMES[part]}.{end}"
    return f"{NAMES[part]}.{end}"


def write(model, kind, rope):
    file = gguf.GGUFWriter("tiny.gguf", kind)
    file.add_context_length(4096)
    file.add_embedding_length(64)
    file.add_block_count(2)
    file.add_feed_forward_length(96)
    file.add_head_count(4)
    file.add_head_count_kv(2)
    if kind == "starcoder2":
        file.add_layer_norm_eps(model.config.norm_epsilon)
    else:
        file.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    file.add_rope_dimension_count(16)
    file.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        file.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        file.add_rope_scaling_factor(rope["factor"])
        file.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings", 4096))
    if rope["rope_type"] == "llama3":
        plain = 50_000.0 ** -(np.arange(8) / 8)
        file.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32))
    file.add_vocab_size(64)
    file.add_tokenizer_model("llama")
    file.add_token_list([f"t{number}" for number in range(64)])
    file.add_token_scores([0.0] * 64)
    file.add_token_types([1] * 64)
    for name, weight in model.state_dict().items():
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = len(weight) // 16
            weight = weight.reshape(heads, 2, 8, 64).swapaxes(1, 2).reshape(weight.shape)
        file.add_tensor(name_of(name), weight.numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def logits(model):
    with torch.no_grad():
        return model(ids).logits[0]


def same(one, two):
    return "yes" if torch.allclose(one, two, atol=1e-3) else "no"


for kind, name, rope in (
    ("llama", "rope_theta", THETA),
    ("llama", "linear", LINEAR),
    ("llama", "llama3", LLAMA),
    ("qwen2", "rope_theta", THETA),
    ("qwen2", "yarn", YARN),
    ("starcoder2", "rope_theta", THETA),
):
    model = model_of(kind, rope)
    write(model, kind, rope)
    read = AutoModelForCausalLM.from_pretrained(".", gguf_file="tiny.gguf", dtype=torch.float32).eval()
    found, wanted, plain = logits(read), logits(model), logits(model_of(kind, THETA))
    base = read.config.rope_parameters["rope_theta"]
    result = f"as written: {same(found, wanted):<4} as without scaling: {same(found, plain):<4} base: {base:,.0f}"
    print(f"{kind:<11} {name:<11} {result}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
llama       rope_theta  as written: yes  as without scaling: yes  base: 50,000
llama       linear      as written: no   as without scaling: yes  base: 50,000
llama       llama3      as written: no   as without scaling: yes  base: 50,000
qwen2       rope_theta  as written: yes  as without scaling: yes  base: 50,000
qwen2       yarn        as written: no   as without scaling: yes  base: 50,000
starcoder2  rope_theta  as written: no   as without scaling: no   base: 10,000
TEXT
diff expected.txt seen.txt
cat seen.txt
