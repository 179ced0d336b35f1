# How far the ratio of a token's probability is from 1 before any update, where `generate` samples and
# a forward pass over the whole text trains: the numbers of doc/trl.md.
#   head -n 4 train.jsonl >four.jsonl                 problems of GSM8K
#   python3 data/ratio_trl.py DIR four.jsonl          DIR: SmolLM2-135M-Instruct
import json
import sys
from contextlib import nullcontext

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

directory, problems = sys.argv[1:]
CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{directory}/tokenizer.json", eos_token="<|im_end|>",
                                    pad_token="<|endoftext|>", padding_side="left")
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
with open(problems) as lines:
    prompts = [CHATML.format(json.loads(line)["question"]) for line in lines]
x = tokenizer(prompts, return_tensors="pt", padding=True)


def logprobs(logits, y):
    return logits.float().log_softmax(-1).gather(-1, y[..., None])[..., 0]


for dtype in ("f32", "bf16"):
    torch.manual_seed(0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if dtype == "bf16" else nullcontext():
        out = model.generate(**x, do_sample=True, top_k=0, max_new_tokens=48, num_return_sequences=2,
                             output_logits=True, return_dict_in_generate=True)
        start = x["input_ids"].shape[1]
        y = out.sequences[:, start:]
        mask = torch.cat([x["attention_mask"].repeat_interleave(2, 0), torch.ones_like(y)], 1)
        logits = model(out.sequences, attention_mask=mask).logits[:, start - 1:-1]
        gap = logprobs(logits, y) - logprobs(torch.stack(out.logits, 1), y)
    ends = y == tokenizer.eos_token_id
    ratio = gap[ends.cumsum(1) - ends.int() == 0].exp()  # up to the end token, with it
    clipped = ((ratio < 0.8) | (ratio > 1.2)).float().mean().item()
    print(f"{dtype}: {len(ratio)} tokens, ratios {ratio.min():.5f} to {ratio.max():.5f}, "
          f"{100 * clipped:.1f} % beyond the clip")
