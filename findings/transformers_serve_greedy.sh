#!/usr/bin/env bash
# transformers 5.23.0: behind `transformers serve`, a temperature changes nothing, and all answers are the same.
#
# Behaviour: the server puts temperature and top_p of a request into the model's generation config, and leaves do_sample
# there as it is. A model that was trained and saved without more has do_sample off, so each answer is the greedy one:
# ten samples of a problem are one sample ten times. Of n=3 comes one answer, logprobs do not come, and under
# /v1/completions a logit_bias has no effect. The status is 200 throughout, a word of it is in the server's log at most;
# a field that the server does not know is refused with 422.
# Expected (guess before the run): a request is done as asked, or refused with the name of the field.
# Way round: do_sample in the model's generation_config.json, or `generation_config` as a JSON text in the request.
#
# Output seen with fastapi 0.165.0, openai 3.57.0, torch 2.13.0; a tiny model of characters, both kinds of requests:
#     chat  answers of ten, temperature 1.5: 1, do_sample: several; all greedy with temperature 1.5: True
#     chat  n=3: 1 answer, with logprobs: False
#     chat  a bias of -100 for the first token: True
#     chat  a field that does not exist: 422
#     text  answers of ten, temperature 1.5: 1, do_sample: several; all greedy with temperature 1.5: True
#     text  n=3: 1 answer, with logprobs: False
#     text  a bias of -100 for the first token: False
#     text  a field that does not exist: 422
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 torch==2.13.0 tokenizers==0.23.3 \
    accelerate==1.15.0 fastapi==0.165.0 uvicorn==0.54.0 openai==3.57.0 pydantic==2.14.4
cd "$folder"
cat > run.py <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<s>", "</s>", *"0123456789+-=abcdef"]
words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
words.decoder = decoders.Fuse()
marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **marks)
tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
tokenizer.save_pretrained("model")
torch.manual_seed(0)
sizes = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LlamaForCausalLM(LlamaConfig(**sizes, **ends, num_attention_heads=2, initializer_range=0.5)).save_pretrained("model")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
PATHS = {"chat": ("chat/completions", {"messages": [{"role": "user", "content": "12+9="}]})}
PATHS["text"] = ("completions", {"prompt": "12+9="})


def ask(kind, **fields):
    path, body = PATHS[kind]
    body = {"model": "model", "max_tokens": 12, **body, **fields}
    url, kind = f"http://127.0.0.1:{port}/v1/{path}", {"Content-Type": "application/json"}
    request = Request(url, json.dumps(body).encode(), kind)
    try:
        with urlopen(request, timeout=120) as answer:
            return json.load(answer)
    except HTTPError as error:
        return error.code


def text(answer):
    choice = answer["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def wait():
    for _ in range(240):
        try:
            return urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except URLError:
            time.sleep(0.5)


serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
with open("server.txt", "w") as log:
    server = subprocess.Popen([*serve, "--device", "cpu"], stdout=log, stderr=log)
try:
    wait()
    for kind in ("chat", "text"):
        plain = text(ask(kind))
        hot = {text(ask(kind, temperature=1.5)) for _ in range(10)}
        asked = json.dumps({"do_sample": True, "temperature": 1.5, "max_new_tokens": 12})
        sampled = {text(ask(kind, generation_config=asked)) for _ in range(10)}
        different = f"temperature 1.5: {len(hot)}, do_sample: {'several' if len(sampled) > 3 else len(sampled)}"
        print(f"{kind:<5} answers of ten, {different}; all greedy with temperature 1.5: {hot == {plain}}")
        more = ask(kind, n=3, logprobs=True if kind == "chat" else 2)["choices"]
        print(f"{kind:<5} n=3: {len(more)} answer, with logprobs: {'logprobs' in more[0]}")
        bias = {str(WORDS.index(plain[0])): -100.0}
        print(f"{kind:<5} a bias of -100 for the first token: {text(ask(kind, logit_bias=bias))[0] != plain[0]}")
        print(f"{kind:<5} a field that does not exist: {ask(kind, none=1)}")
finally:
    server.terminate()
    server.wait()
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
chat  answers of ten, temperature 1.5: 1, do_sample: several; all greedy with temperature 1.5: True
chat  n=3: 1 answer, with logprobs: False
chat  a bias of -100 for the first token: True
chat  a field that does not exist: 422
text  answers of ten, temperature 1.5: 1, do_sample: several; all greedy with temperature 1.5: True
text  n=3: 1 answer, with logprobs: False
text  a bias of -100 for the first token: False
text  a field that does not exist: 422
TEXT
diff expected.txt seen.txt
cat seen.txt
