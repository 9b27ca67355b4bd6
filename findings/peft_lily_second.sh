#!/usr/bin/env bash
# PEFT 0.21.2: a second Lily adapter does not share its matrices, and loaded again it is another adapter.
#
# Behaviour: Lily shares one B among all layers, and one A among stride_A of them. The adapter that get_peft_model makes
# does so. One made by add_adapter has an A and a B of its own in each layer, and three times the weights to train. It
# trains well. save_pretrained writes each layer's own matrices; from_pretrained shares them again, and so keeps those
# of one layer for all. What was trained is lost, the loss is that of an untrained model or worse, and nothing is said.
# Expected (guess before the run): each adapter is shared as its settings say, and is the same when loaded again.
# Way round: one Lily adapter to a model, each made by get_peft_model.
#
# Output seen with peft 0.21.2, transformers 5.23.0, torch 2.13.0; adapters trained alike, one after the other:
#     first   matrices of four layers: A 2, B 1  trained weights: 2112  loss low, loaded again low
#     second  matrices of four layers: A 4, B 4  trained weights: 6208  loss low, loaded again high
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.23.0 torch==2.13.0
cd "$folder"
cat > run.py <<'PYTHON'
import torch
from peft import LilyConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
ids = torch.randint(3, 100, (1, 12), generator=torch.Generator().manual_seed(1))


def base():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, initializer_range=0.2)).eval()


def settings():
    return LilyConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=4, stride_A=2)


def matrices(model, name):
    layers = [layer.self_attn.q_proj for layer in model.base_model.model.model.layers]
    kinds = ([layer.lily_A[name].weight for layer in layers], [layer.lily_B[name].weight for layer in layers])
    return "A {}, B {}".format(*(len(set(map(id, weights))) for weights in kinds))


def loss(model):
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    return "low" if loss < 1.5 else "high" if loss > 3 else "between"


model = get_peft_model(base(), settings(), adapter_name="first").eval()
model.add_adapter("second", settings())
torch.manual_seed(2)
for name in ("first", "second"):
    model.set_adapter(name)
    steps = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    for _ in range(20):
        steps.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        steps.step()
model.save_pretrained("adapters")
for name in ("first", "second"):
    model.set_adapter(name)
    loaded = PeftModel.from_pretrained(base(), f"adapters/{name}").eval()
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    print(f"{name:<7} matrices of four layers: {matrices(model, name)}  trained weights: {weights}", end="  ")
    print(f"loss {loss(model)}, loaded again {loss(loaded)}")
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
first   matrices of four layers: A 2, B 1  trained weights: 2112  loss low, loaded again low
second  matrices of four layers: A 4, B 4  trained weights: 6208  loss low, loaded again high
TEXT
diff expected.txt seen.txt
cat seen.txt
