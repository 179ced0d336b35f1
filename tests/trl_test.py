"""data/trl_g2rl.py in an unmodified TRL, against ./g2rl explain. .ci/run does it where torch, trl
and peft are installed; PYTHON names the interpreter that has them.

    python3 tests/trl_test.py         every check, a line each, half a minute
    torchrun --nproc-per-node 2 tests/trl_test.py advantages FILE      what two_processes starts

GRPOTrainer runs as it is, but for its sampling where a check needs responses of its own choice."""
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings

sys.dont_write_bytecode = True
warnings.filterwarnings("ignore", category=FutureWarning)  # TRL's own calls
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
sys.path[0] = os.path.join(ROOT, "data")

import accelerate  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402
from transformers import PrinterCallback  # noqa: E402

import trl_g2rl  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
MODEL, ADAPTER = f"{HERE}/models/q3_tied_f32", f"{HERE}/adapters/q3_tied_f32_r4"
M, PROMPTS, END = 6, ["Once", "Once upon a time, there", "12 + 7"], 488


def given(seed=0):
    """Groups of M responses each, of 1 to 12 random tokens, and their rewards: one mixed, one all
    wrong, one with unequal rewards and copies."""
    dice = random.Random(seed)
    groups = [[[dice.randrange(480) for _ in range(dice.randrange(12))] + [END] for _ in range(M)]
              for _ in PROMPTS]
    groups[2][3] = groups[2][1]
    return groups, [[1, -1, -1, 1, -1, -1], [-1] * M, [2.5, 2, -1, 2, -3, -1]]


def tokenizer():
    file = f"{HERE}/tok/qwen3mini512/tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|im_end|>",
                                   pad_token="<|endoftext|>")


class Scripted(trl_g2rl.G2RLTrainer):
    """Responses from a list in the place of sampled ones; keeps what the method made of them."""

    def _generate_single_turn(self, prompt_ids, *_):
        here = self.accelerator.process_index * len(prompt_ids)
        self.prompt_ids = [list(x) for x in prompt_ids]
        return self.responses[here:here + len(prompt_ids)], None

    def shape(self, r, Phi, log_metric):
        self.Phi, self.rtilde = accelerate.utils.gather(Phi), super().shape(r, Phi, log_metric)
        return self.rtilde


def config(out, **options):
    return trl.GRPOConfig(output_dir=out, use_cpu=True, bf16=False, activation_checkpointing=False,
                          beta=0.0, logging_steps=1, report_to=[], save_strategy="no",
                          disable_tqdm=True, **options)


def one_step(model, groups, rewards, temperature=1.0, processes=1, **options):
    """The trainer after one step on the groups: Phi, rtilde, the advantages that TRL made."""
    flat = [y for group in groups for y in group]

    def reward(completion_ids, **_):
        start = trainer.accelerator.process_index * len(completion_ids)
        return [r for group in rewards for r in group][start:start + len(completion_ids)]

    args = config(tempfile.mkdtemp(), max_steps=1, num_generations=M, temperature=temperature,
                  per_device_train_batch_size=len(flat) // processes, shuffle_dataset=False,
                  max_completion_length=16, learning_rate=1e-3, optim="sgd")
    data = Dataset.from_dict({"prompt": PROMPTS[:len(groups)]})
    trainer = Scripted(model, reward, args=args, train_dataset=data, processing_class=tokenizer(),
                       **options)
    trainer.responses = flat
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.advantages = torch.tensor(list(trainer._logs["advantages"]), dtype=torch.double)
    return trainer


def explain(groups, rewards, prompts, temperature, *options):
    """The same groups through the C program: a list of its JSON objects."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for x, y, r in zip(prompts, groups, rewards):
            file.write(json.dumps({"prompt_ids": x, "response_ids": y, "rewards": r}) + "\n")
        file.flush()
        command = ["./g2rl", "explain", "--model", MODEL, "--data", file.name, "--json",
                   "--temperature", str(temperature), *options]
        lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in lines.stdout.splitlines()]


def error(ours, theirs):
    """|ours - theirs| / |theirs|, of whole tensors."""
    ours = torch.as_tensor(ours, dtype=torch.double).flatten()
    theirs = torch.as_tensor(theirs, dtype=torch.double).flatten()
    assert len(ours) == len(theirs) > 0, f"{len(ours)} numbers against {len(theirs)}"
    return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-12)).item()


def logged(groups, rewards):
    """What the metrics should say of groups that the C program explained, by their definitions in
    ./g2rl help metrics."""
    pairs = [c["S"][i][j] for c in groups for i in range(M) for j in range(i)]
    nu, A2, novel = [x for c in groups for x in c["nu"]], 0.0, 0.0
    for c, r in zip(groups, rewards):
        for A, x in zip(c["A"], r):
            alike = [a for a, y in zip(c["A"], r) if y == x]
            A2, novel = A2 + A * A, novel + A * (A - sum(alike) / len(alike))
    return {"base_reward": sum(map(sum, rewards)) / M / len(groups), "frac_dead": 1 / len(groups),
            "phi/cos_mean": sum(pairs) / len(pairs), "phi/nu_mean": sum(nu) / len(nu),
            "phi/neg_ratio": sum(x < 0 for x in pairs) / len(pairs),
            "adv/novelty_share": novel / A2}


def against_c(model, temperature, dead_groups, *options):
    """The same tokens and rewards through TRL and through explain: the largest error of each."""
    groups, rewards = given()
    trainer = one_step(model, groups, rewards, temperature, dead_groups=dead_groups)
    explained = explain(groups, rewards, trainer.prompt_ids[::M], temperature, "--dead-groups",
                        dead_groups, *options)
    worst = dict.fromkeys(("Phi", "S", "nu", "nubar", "rtilde", "A"), 0.0)
    for i, c in enumerate(explained):
        part = slice(i * M, (i + 1) * M)
        S = trl_g2rl.cosines(trainer.Phi[part].double()[None])
        nu, nubar = trl_g2rl.novelty(S, torch.tensor([rewards[i]], dtype=torch.double))
        rtilde = torch.tensor(c["rtilde"], dtype=torch.double)
        # TRL divides by the std of m - 1 and adds 1e-4; g2rl by that of m and adds 1e-6.
        A = torch.tensor(c["A"]) * (rtilde.std(correction=0) + 1e-6) / (rtilde.std() + 1e-4)
        if dead_groups == "zero" and i == 1:
            rtilde = torch.tensor(rewards[i])  # here r~ is r; there A is 0, whatever r~
        for name, ours, theirs in (("Phi", trainer.Phi[part], c["Phi"]), ("S", S, c["S"]),
                                   ("nu", nu, c["nu"]), ("nubar", nubar, c["nubar"]),
                                   ("rtilde", trainer.rtilde[part], rtilde),
                                   ("A", trainer.advantages[part], A)):
            worst[name] = max(worst[name], error(ours, theirs))
    assert all(x < 1e-5 for x in worst.values()), f"errors of {worst}; expected below 1e-5"
    log = trainer.state.log_history[0]
    for name, value in logged(explained, rewards).items():  # the share knows of the two std
        assert abs(log[name] - value) < 1e-3, f"{name}: {log[name]}; expected {value}"
    return ", ".join(f"{name} {x:.0e}" for name, x in worst.items())


def load():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def explained():
    return against_c(load(), 1.0, "full")


def cooler_live_groups():
    return against_c(load(), 0.7, "zero")


def adapter():
    settings = peft.PeftConfig.from_pretrained(ADAPTER)
    settings.lora_dropout = 0.5  # not of features
    model = peft.PeftModel.from_pretrained(load(), ADAPTER, is_trainable=True, config=settings)
    return against_c(model, 1.0, "full", "--adapter", ADAPTER)


def tiles():
    """The features are the same whatever the tile; certain tokens have none."""
    torch.manual_seed(0)
    h, W, y = torch.randn(9, 8), 3 * torch.randn(50, 8), torch.randint(50, (9,))
    h[0], y[0] = 100 * W[7], 7
    whole = W[y] - torch.softmax(h @ W.T / 0.8, -1) @ W
    worst = max(error(trl_g2rl.token_features(h, y, W, 0.8, n), whole) for n in (1, 7, 50, 99))
    assert worst < 1e-5, f"an error of {worst}"
    assert trl_g2rl.token_features(h, y, W, 0.8)[0].norm() < 1e-5
    return f"{worst:.0e}"


def degenerate():
    """Features that vanish, responses that are equal, and rewards far from each other."""
    Phi = torch.zeros(1, 4, 3, dtype=torch.double)
    Phi[0, 1] = Phi[0, 2] = torch.tensor([1.0, 2, 3])
    S = trl_g2rl.cosines(Phi)
    nu, _ = trl_g2rl.novelty(S, torch.tensor([[1.0, -1, 2000, -1]], dtype=torch.double))
    assert nu.tolist()[0][0] == nu.tolist()[0][3] == 0, "certainty is not novelty"
    assert nu[0, 1] < 1e-12 and abs(nu[0, 2] - (1 - math.exp(-1) / (math.e + 2 / math.e))) < 1e-12
    S = trl_g2rl.cosines(torch.ones(1, 4, 3, dtype=torch.double))
    _, nubar = trl_g2rl.novelty(S - 1e-9 * torch.rand(4, 4), torch.ones(1, 4, dtype=torch.double))
    assert (nubar == 0).all(), "rounding is not novelty"
    r, S = torch.tensor([[1.0, -1, 2]]), [[1, -0.5, 0], [-0.5, 1, 0.2], [0, 0.2, 1]]
    log = trl_g2rl.metrics(r.double(), torch.tensor([S], dtype=torch.double), r, r.double())
    assert abs(log["phi/neg_ratio"] - 1 / 3) < 1e-6 and abs(log["phi/cos_mean"] + 0.1) < 1e-6
    return ""


def evaluation():
    """Outside of training a reward is what it is; and of a step nothing stays behind."""
    trainer = one_step(load(), *given())
    assert trainer.model.training and not trainer.model.model._forward_hooks
    trainer.model.eval()
    r = trainer.shaped_reward(PROMPTS, PROMPTS, [[1]] * 3, trainer._log_metric)
    assert r == given()[1][0][:3], f"{r}"
    return ""


def refused():
    """What the features would be wrong for ends in one line that says so."""
    reward = lambda **_: []
    cases = [lambda: trl_g2rl.G2RLTrainer(MODEL, [reward]),
             lambda: trl_g2rl.G2RLTrainer(MODEL, reward, dead_groups="left"),
             lambda: trl_g2rl.G2RLTrainer(MODEL, reward, tools=[reward]),
             lambda: one_step(load(), given()[0], [[math.nan] * M] * 3),
             lambda: one_step(load(), given()[0], [[1] * M, [None] * M, [1] * M])]
    model = load()
    model.lm_head.register_forward_hook(lambda module, args, out: out / 8)
    cases.append(lambda: trl_g2rl.features(model, [[1]], [[2]], 1.0))
    said = []
    for case in cases:
        try:
            case()
        except (ValueError, NotImplementedError) as problem:
            said.append(str(problem).partition(":")[0].partition(";")[0])
    assert len(said) == len(cases), f"not all were refused: {said}"
    return "; ".join(said)


def advantages(file, processes):
    """In one of two processes, or alone: three groups; the second lies across both."""
    trainer = one_step(load(), *given(), processes=processes)
    log = {k: v for k, v in trainer.state.log_history[0].items() if "/" in k or k == "base_reward"}
    if trainer.accelerator.is_main_process:
        weights = torch.cat([w.detach().flatten() for w in trainer.model.parameters()])
        torch.save((trainer.advantages, log, weights), file)


def two_processes():
    with tempfile.TemporaryDirectory() as dir:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                   "--master-port", str(random.randrange(20000, 60000)), __file__, "advantages"]
        subprocess.run([*command, f"{dir}/two"], check=True, capture_output=True, text=True,
                       env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"})
        advantages(f"{dir}/one", 1)
        (A1, log1, w1), (A2, log2, w2) = torch.load(f"{dir}/one"), torch.load(f"{dir}/two")
    start = torch.cat([w.detach().flatten() for w in load().parameters()])
    errors = error(A2, A1), error(w2 - start, w1 - start)
    assert max(errors) < 1e-4, f"errors of advantages and update: {errors}"
    names = ("base_reward", "phi/cos_mean", "phi/neg_ratio", "phi/nu_mean", "adv/novelty_share")
    for name in names:
        assert abs(log1[name] - log2[name]) < 1e-5, f"{name}: {log1[name]} and {log2[name]}"
    return f"A {errors[0]:.0e}, the update {errors[1]:.0e}"


def learns():
    """20 steps of a tiny model of random weights raise its reward: +1 where most of 8 characters
    are digits."""
    with tempfile.TemporaryDirectory() as dir:
        command = ["./g2rl", "sft", "--preset", "nano", "--task", "add", "--steps", "0", "--force",
                   "--out", dir]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)

        def reward(completions, **_):
            return [1.0 if sum(map(str.isdigit, c)) > 4 else -1.0 for c in completions]

        base = f"{dir}/checkpoint-0"
        args = config(f"{dir}/out", max_steps=20, num_generations=8, per_device_train_batch_size=64,
                      max_completion_length=8, learning_rate=3e-4, lr_scheduler_type="constant")
        data = Dataset.from_dict({"prompt": [f"{i}+{i}:" for i in range(10, 90)]})
        trainer = trl_g2rl.G2RLTrainer(base, reward, args=args, train_dataset=data,
                                       processing_class=AutoTokenizer.from_pretrained(base))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        rewards = [x["base_reward"] for x in trainer.state.log_history if "base_reward" in x]
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    assert len(rewards) == 20 and last > first + 0.3, f"rewards {rewards}"
    return f"mean reward of 5 steps, {first:+.2f} to {last:+.2f}"


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:2] == ["advantages"]:
        advantages(sys.argv[2], 2)
        sys.exit()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, trl "
          f"{trl.__version__}, accelerate {accelerate.__version__}, peft {peft.__version__}")
    failed, checks = 0, (tiles, degenerate, explained, cooler_live_groups, adapter, evaluation,
                         refused, two_processes, learns)
    for check in checks:
        start = time.monotonic()
        try:
            said = check()
        except subprocess.CalledProcessError as problem:
            failed, said = failed + 1, f"FAILED: {problem}\n{problem.stderr}"
        except AssertionError as problem:
            failed, said = failed + 1, f"FAILED: {problem}"
        print(f"{check.__name__}: {said} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(failed > 0)
