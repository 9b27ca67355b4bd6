"""Runs an environment by its own library, in a process of its own: ``python foreign_environments.py NAME FOLDER``.

Prints ``right`` where the library's scores are those that they must be.
"""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from caef_data import successor

HERE = Path(__file__).resolve().parents[1] / "eval" / "environments"


def reasoning_gym(folder: Path) -> None:
    import reasoning_gym as gym
    from reasoning_gym.composite import CompositeConfig, CompositeDataset, DatasetSpec

    import caef_data.eval.environments.gym_dataset  # noqa: F401

    settings = {"declaration": "smoke", "split": "test"}
    data, other = (gym.create_dataset("caef_data", size=20, seed=seed, **settings) for seed in (3, 4))
    for item in data:
        scores = [data.score_answer(answer, item) for answer in (item["answer"], item["answer"][:-1], "", None)]
        assert scores == [1.0, 0.0, 0.0, 0.0], scores
    questions = [[item["question"] for item in one] for one in (data, other)]
    assert sum(first == second for first, second in zip(questions[0][1:], questions[1], strict=False)) < 5
    assert questions[0] == [item["question"] for item in gym.create_dataset("caef_data", size=20, seed=3, **settings)]
    specs = [DatasetSpec("caef_data", 1, settings), DatasetSpec("chain_sum", 1, {})]
    mixed = CompositeDataset(CompositeConfig(size=12, seed=1, datasets=specs))
    assert all(mixed.score_answer(item["answer"], item) == 1.0 for item in mixed)
    assert {item["metadata"]["source_dataset"] for item in mixed} == {"caef_data", "chain_sum"}


def verifiers(folder: Path) -> None:
    import verifiers.v1 as vf
    from caef_taskset import CaefConfig, CaefTaskset

    taskset = CaefTaskset(CaefConfig(declaration="smoke", split="test"))
    assert not taskset.bounded
    for task in taskset.take(6):
        right = task.data.row["completion"]
        assert task.data.prompt == task.data.row["prompt"] and asyncio.run(task.validate(None))
        for answer, reward in ((right, 1.0), (right[:-1], 0.0), (right + "\n", 0.0), ("", 0.0)):
            message = vf.MessageNode(message=vf.AssistantMessage(content=answer), sampled=True)
            about: Any = vf.TraceTask(type="CaefTask", data=task.data)
            trace = vf.Trace.model_construct(task=about, nodes=[message], rewards={}, metrics={})
            asyncio.run(task.score(trace))
            assert trace.reward == reward, (answer, trace.rewards)


def verifiers_command(folder: Path) -> None:
    """Its own check of a taskset: no task's answer is wrong, and none is solved by nothing."""
    words = ["caef-taskset", "--taskset.declaration", "smoke", "--select.limit", "5", "--runtime.type", "subprocess"]
    command = [str(Path(sys.executable).with_name("vf-validate")), *words, "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    (found,) = folder.rglob("summary.json")
    assert done.returncode == 0 and json.loads(found.read_text())["outcomes"]["valid"] == 5, done.stderr[-2000:]


def inspect_ai(folder: Path) -> None:
    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from caef_data.eval.environments.inspect_tasks import rows

    task = rows("smoke", num=6)
    answers = [one.target if one.id % 2 else one.target[:-1] for one in task.dataset]
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else the mock fetches a vocabulary to count
    outputs = [
        ModelOutput(model="mock", choices=ModelOutput.from_content("mock", answer).choices, usage=usage)
        for answer in answers
    ]
    model = get_model("mockllm/model", custom_outputs=outputs)
    [log] = evaluate(
        "caef_data/rows",
        task_args={"num": 6},
        model=model,
        log_dir=str(folder),
        display="none",
        max_connections=1,
        max_samples=1,
    )
    assert log.status == "success" and log.results is not None and log.samples is not None, log.error
    assert log.results.scores[0].metrics["accuracy"].value == 0.5
    for sample in log.samples:
        score = (sample.scores or {})["to_the_character"]
        assert score.value == ("C" if int(sample.id) % 2 else "I")
        assert (score.explanation is None) == (score.value == "C")


def lm_eval(folder: Path) -> None:
    import lm_eval as harness
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Exact(LM):  # type: ignore[misc]
        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            for request in requests:
                assert request.args[1] == {"until": [], "do_sample": False, "max_gen_toks": 8192}
            answers = [successor(request.args[0]) for request in requests]
            return [answer[: len(answer) - number % 2] for number, answer in enumerate(answers)]

        loglikelihood = loglikelihood_rolling = generate_until

    metadata = {"declaration": "smoke", "num": 10}
    tasks = TaskManager(include_path=str(HERE / "lm_eval_tasks"), include_defaults=False, metadata=metadata)
    found = harness.simple_evaluate(Exact(), tasks=["caef_rows"], task_manager=tasks, bootstrap_iters=0)
    assert found["results"]["caef_rows"]["exact,none"] == 0.5, found["results"]


def openenv(folder: Path) -> None:
    import uvicorn
    from openenv.core import GenericEnvClient

    from caef_data.eval.environments.openenv_server import create_app

    app = create_app({"task": "sub", "min": 2, "max": 3, "num": 1}, mode="run", calls="model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    with (
        GenericEnvClient(f"http://127.0.0.1:{port}").sync() as env,
        GenericEnvClient(f"http://127.0.0.1:{port}").sync() as other,
    ):
        result, beside = env.reset(number=0), other.reset(number=1)
        assert result.observation["prompt"] != beside.observation["prompt"]
        total = 0.0
        while not result.done:
            result = env.step({"answer": successor(result.observation["prompt"])})
            total += result.reward
        assert abs(total - 1) < 1e-9 and result.observation["metadata"]["end"] == "halted"
        wrong = other.step({"answer": "x"})
        assert wrong.done and wrong.reward == 0 and wrong.observation["metadata"]["end"] == "no entry follows"
    server.should_exit = True


def trl(folder: Path) -> None:
    """Two steps of GRPO, with the rewards that the answers of each step deserve."""
    from trl import GRPOConfig, GRPOTrainer

    from caef_data import environment, score
    from caef_data.eval.environments.trl_rewards import reward
    from caef_data.tests.small_model import make_model, make_tokenizer
    from datasets import Dataset

    rows = environment({"task": "left_mask", "min": 1, "max": 1, "num": 5}).rows
    tokenizer = make_tokenizer()
    seen: list[tuple[str, str, float]] = []

    def watched(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        assert {"task", "a", "instruction"} <= columns.keys()
        found = reward(prompts, completions, **columns)
        seen.extend(zip(prompts, completions, found, strict=True))
        return found

    names = ("max_completion_length", "num_generations", "per_device_train_batch_size", "max_steps")
    sizes = dict(zip(names, (8, 2, 2, 2), strict=True))
    config = GRPOConfig(str(folder), report_to="none", bf16=False, use_cpu=True, save_strategy="no", **sizes)
    data = Dataset.from_list(
        [{key: rows[number][key] for key in ("prompt", "task", "a", "instruction")} for number in range(4)]
    )
    model = make_model(len(tokenizer), positions=512)
    trainer = GRPOTrainer(model, [watched], args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    assert len(seen) == 4 and all(prompt in data["prompt"] for prompt, _, _ in seen)
    assert [found for _, _, found in seen] == [float(score(prompt, answer).right) for prompt, answer, _ in seen]
    right = [successor(prompt) for prompt in data["prompt"]]
    assert reward(list(data["prompt"]), right, task=["left_mask"] * 4) == [1.0] * 4
    talks = [[{"role": "user", "content": prompt}] for prompt in data["prompt"]]
    answers = [[{"role": "assistant", "content": answer}] for answer in [*right[:2], right[2][:-1], None]]
    assert reward(talks, answers) == [1.0, 1.0, 0.0, 0.0]


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
    print("right")
