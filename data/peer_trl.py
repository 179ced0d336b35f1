# RL steps of a model directory in TRL, to measure ours against: the same prompts and settings, 8
# responses of up to 64 tokens to each problem of FILE, G2RL, KL to the reference, one update.
#   head -n 4 train.jsonl >four.jsonl                 problems of GSM8K
#   python3 data/peer_trl.py DIR four.jsonl full f32          or bf16; lora in the place of full
#   ./g2rl train --model DIR --data four.jsonl --template chatml --prompts 4 --rollouts 8 \
#       --max-tokens 64 --lr 1e-6 --steps 3 --no-check --force --out runs/peer       and --lora 16
# Prints the seconds of each step, their median without the first, which warms up, and the mean
# length of responses. METHOD=grpo does without the features. On all cores; run both by turns.
import json
import os
import statistics
import sys
import time

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402
from datasets import Dataset  # noqa: E402

from trl_g2rl import G2RLTrainer  # noqa: E402

STEPS, M, NEW = int(os.environ.get("STEPS", 3)), 8, 64
METHOD = os.environ.get("METHOD", "g2rl")
CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
model, file, kind, dtype = sys.argv[1:]


class Clock(transformers.TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        seconds.append(time.perf_counter() - self.start)


def reward(completions, answer, **_):  # right: the answer is in the text
    return [1.0 if a in c else -1.0 for c, a in zip(completions, answer)]


with open(file) as lines:
    problems = [json.loads(line) for line in lines]
data = Dataset.from_list([{"prompt": CHATML.format(p["question"]),
                           "answer": p["answer"].split("#### ")[-1]} for p in problems])
args = trl.GRPOConfig(
    output_dir="runs/peer_trl", use_cpu=True, bf16=dtype == "bf16", activation_checkpointing=False,
    per_device_train_batch_size=M, gradient_accumulation_steps=len(problems), num_generations=M,
    max_completion_length=NEW, beta=0.001, learning_rate=1e-6, lr_scheduler_type="constant",
    max_steps=STEPS, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True)
tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_file=f"{model}/tokenizer.json", eos_token="<|im_end|>", pad_token="<|endoftext|>")
adapter = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
Trainer, seconds = trl.GRPOTrainer if METHOD == "grpo" else G2RLTrainer, []
trainer = Trainer(model, reward, args=args, train_dataset=data, processing_class=tokenizer,
                  callbacks=[Clock()], peft_config=adapter if kind == "lora" else None)
trainer.remove_callback(transformers.PrinterCallback)
trainer.train()
length = statistics.mean(x["completions/mean_length"] for x in trainer.state.log_history[:-1])
print(f"{METHOD} {kind} {dtype}: {statistics.median(seconds[1:]):.2f} s a step, of "
      f"{' '.join(f'{s:.2f}' for s in seconds)}; {length:.1f} tokens a response; torch "
      f"{torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}")
