#!/usr/bin/env bash
# onnxruntime-genai 0.18.0: a model whose vocabulary is as large as a layer is wide is built as nonsense, in silence.
#
# Behaviour: the model builder knows the layer of the logits by its size: a linear layer with as many outputs as there
# are tokens. Where another layer has that size, such as the keys of a small model with a vocabulary of digits, the
# logits are taken from the middle of the first layer, and all that follows is left unused. The builder ends without an
# error, and the model runs. With one token more or fewer it is right.
# Expected (guess before the run): the logits of transformers for any size of the vocabulary, or an error.
# Way round: spare tokens in the vocabulary, so that its size is that of no layer.
#
# Output seen with transformers 5.23.0, torch 2.13.0, for a tiny Llama in float32 on a CPU: how many tokens; what the
# logits are computed from; whether they are those of transformers; the layers that are as wide.
#      63 layers.2/final_norm_layernorm      True
#      64 layers.0/post_attention_layernorm  False k_proj v_proj
#      65 layers.2/final_norm_layernorm      True
#      96 layers.0/post_attention_layernorm  False gate_proj up_proj
#     128 layers.0/post_attention_layernorm  False down_proj o_proj q_proj
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx-ir==1.1.0 onnx==1.23.2 \
    transformers==5.23.0 torch==2.13.0 tokenizers==0.23.3
cd "$folder"
cat > run.py <<'PYTHON'
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime_genai as og
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sizes = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}
ids = torch.randint(3, 32, (1, 20), generator=torch.Generator().manual_seed(1))
for words in (63, 64, 65, 96, 128):
    torch.manual_seed(0)
    settings = LlamaConfig(vocab_size=words, num_key_value_heads=2, **sizes, **ends, initializer_range=0.2)
    model = LlamaForCausalLM(settings).eval()
    model.save_pretrained("model")
    names = ["<pad>", "<s>", "</s>", *map(str, range(words - 3))]
    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained("model")
    build = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", "model", "-o", "onnx", "-c", "cache"]
    done = subprocess.run([*build, "-p", "fp32", "-e", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (head,) = [node for node in onnx.load("onnx/model.onnx").graph.node if "lm_head" in node.name]
    source = head.input[0].removeprefix("/model/").removesuffix("/output_0")
    built = og.Model("onnx")
    generator = og.Generator(built, og.GeneratorParams(built))
    generator.append_tokens(ids[0].numpy().astype(np.int32))
    with torch.no_grad():
        wanted = model(ids).logits[0, -1].numpy()
    same = np.allclose(np.asarray(generator.get_logits()).reshape(-1)[-words:], wanted, atol=1e-3)
    named = model.model.named_modules()
    width = sorted({name.split(".")[-1] for name, layer in named if getattr(layer, "out_features", 0) == words})
    print(f"{words:>3} {source:<34} {same!s:<5} {' '.join(width)}".rstrip())
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
 63 layers.2/final_norm_layernorm      True
 64 layers.0/post_attention_layernorm  False k_proj v_proj
 65 layers.2/final_norm_layernorm      True
 96 layers.0/post_attention_layernorm  False gate_proj up_proj
128 layers.0/post_attention_layernorm  False down_proj o_proj q_proj
TEXT
diff expected.txt seen.txt
cat seen.txt
