/* help.h: what the program says about itself: g2rl help, g2rl help COMMAND (or g2rl COMMAND
 * --help), g2rl help metrics. */
#ifndef HELP_H
#define HELP_H

#include "../rl/session.h" /* defines: COMMANDS, OPTIONS; task.h: task_help */

/* What is to be said below the options, and by which commands. */
#define C(x) (1u << (x))
static const struct {
    unsigned commands;
    const char *text;
} NOTES[] = {
    {C(SFT),
     "--data FILE: JSONL of `prompt` (or `question`, `problem`) and `response` (or\n"
     "    `completion`, `output`; else `answer`, `solution`, `ground_truth`), where the\n"
     "    response is learned; of `messages` with role and content, where the assistant's are\n"
     "    learned, by a chat template (prompt and response may be lists of them, too); of\n"
     "    `text`, all of it learned; or of `input_ids`, with `labels` or without: as many,\n"
     "    -100 where nothing is learned. A file whose name ends in .txt is plain text.\n"
     "    Without --data: solved problems of --task.\n"},
    {C(TRAIN) | C(EXPLAIN),
     "--method: they differ in the reward r~ that advantages are made of, or in the loss.\n"
     "    grpo     r~ = r: +1 right, -1 wrong\n"
     "    entropy  GRPO, with --entropy-coef times the mean token entropy in the objective\n"
     "    evol     EVOL-RL: 0.5 to 1 right, -1 to -0.5 wrong, higher where an answer's\n"
     "             embedding (--encoder) is less like the others'; -1 without an answer.\n"
     "             With --encoder ref the starting model is kept in any case\n"
     "    g2rl     r (1 + lambda r nubar), Eq 12 as printed: nubar from the cosines of the\n"
     "             responses' gradient features (Eq 9-13). Rewards of 0 are not shaped, and\n"
     "             with --rollouts 2 nothing is\n"},
    {C(EXPLAIN),
     "--data FILE: JSONL, a group a line: `prompt`, `responses` and `rewards` (or\n"
     "    `prompt_ids` and `response_ids`); or problems, as for eval, the first of which is\n"
     "    sampled. Without --data and --prompt, the first problem of --task.\n"},
    {C(TRAIN) | C(EVAL) | C(GEOMETRY) | C(DATA),
     "--data FILE: JSONL of `prompt`, `question` or `problem`, and of `ground_truth`,\n"
     "    `answer`, `solution` or `output`, the first of them that is there. GSM8K, MATH and\n"
     "    SVAMP files as they are. The prompt may be a conversation, a list of role and\n"
     "    content, or be called `messages`: its last message asks; one of the assistant after\n"
     "    it is the answer.\n"},
    {DRAW | C(SFT),
     "--template: from a problem to the prompt that the model reads.\n"
     "    plain    the problem as it is\n"
     "    chatml   turns of <|im_start|> and <|im_end|>: SmolLM2, Qwen2.5. Their own\n"
     "             templates begin with a system text (`You are Qwen, ..`); chatml has the\n"
     "             one of --system, or none\n"
     "    qwen3    Qwen3's, the same for one question\n"
     "    llama3   turns of <|start_header_id|> and <|eot_id|>; without the dates that 3.1 and\n"
     "             later put before the system text\n"
     "    FILE     a text with {prompt} and perhaps {system}\n"
     "    Where it is not given and the model has a chat template, a line says so.\n"},
    {C(TRAIN) | C(EVAL) | C(EXPLAIN),
     "--verifier: +1 for a right and finished response, -1 for any other.\n"
     "    countdown, add, maze, reach\n"
     "           any right response to the built-in task's problem\n"
     "    math   the final answer equals the gold answer as mathematics\n"
     "    exact  the response is the gold answer, white space around it aside\n"
     "    auto   the task's own for --task; for --data whose first prompt a built-in task\n"
     "           reads (`3574>26:`), that task's, --task before others, if any answer of the\n"
     "           file is right by it; else math\n"
     "\n"
     "--reward-cmd CMD: started once by /bin/sh. For each response it reads a line\n"
     "    {\"prompt\": \"..\", \"response\": \"..\", \"answer\": \"..\"}\n"
     "    and writes, in the same order, {\"reward\": 0.5, \"reason\": \"..\"} or a number\n"
     "    (true is 1, false and null are 0), one a line. All lines of a step are sent at\n"
     "    once; each answer must be flushed.\n"
     "    Any real number is a reward; one above 0 counts as right in pass@1; shaped rewards\n"
     "    (g2rl) are clipped to [-3, 3]. The data needs no answers then, and responses that\n"
     "    were cut off are judged like any other. Example: data/reward_story.sh\n"},
    {C(SFT) | C(TRAIN),
     "--lora N: trains an adapter (LoRA): W = W0 + (alpha / N) B A, with A and B of rank N, in\n"
     "    place of the weights. Memory for gradients and moments all but vanishes; a\n"
     "    checkpoint is a small directory that PEFT opens, and --model or --adapter here.\n"
     "    The reference is the model at step 0. It wants a larger --lr: 3 times that of all\n"
     "    weights for models made here, by others' experience 10 times for pretrained ones.\n"},
    {C(SCORE),
     "Reads lines {\"text\": \"..\"} or {\"input_ids\": [..]} and writes for each\n"
     "    {\"input_ids\": [..], \"logprobs\": [null, ..]}: ln p of each id, given\n"
     "    those before it.\n"},
    {C(TOKENIZE),
     "Reads lines {\"text\": \"..\"} and writes {\"input_ids\": [..]}; a line of \"messages\"\n"
     "    becomes a prompt first, as --template says; chatml and llama3 as for other commands\n"
     "    (see g2rl sample --help). --decode goes the other way.\n"},
    {C(SFT) | C(TRAIN),
     "Stopping and going on: Ctrl-C, SIGTERM, SIGHUP or a closed stderr end a run within\n"
     "    seconds: it saves its last whole step and exits with status 130. A second signal\n"
     "    ends it at once. An error, such as a reward command that dies, saves that step, too.\n"
     "    A run that is refused in its first step leaves nothing behind. --resume goes on\n"
     "    from the newest complete checkpoint of --out, from any directory, also where the\n"
     "    run was killed. Options that are not given are the run's own. Given ones that differ\n"
     "    are listed, and refused without --force; --threads, --micro-batch, --recompute,\n"
     "    --save-every, --eval-every, --keep and --reward-timeout may differ, with --schedule\n"
     "    constant --steps too, and a file's path, if it holds the same. Lines of later steps\n"
     "    are removed from the run's files: in the end these are those of a run that was\n"
     "    never stopped.\n"},
};
#undef C

static void help(FILE *f)
{
    fprintf(f, "g2rl %s: gradient-guided reinforcement learning for small language models\n\n"
               "usage: g2rl COMMAND [--option value]... [@file]\n\n", VERSION);
    for (int c = 0; c < N_COMMANDS; c++)
        fprintf(f, "  %-10s %s\n", COMMANDS[c].name, COMMANDS[c].summary);
    fputs("\ng2rl help COMMAND has a command's options; g2rl help metrics says what the numbers\n"
          "of metrics.jsonl and eval.jsonl are; @file reads options from a file, one a line.\n\n"
          "first steps:\n"
          "  g2rl sft --preset nano --task countdown --steps 1600 --out runs/base\n"
          "  g2rl train --model runs/base --method g2rl --out runs/g2rl\n"
          "  g2rl eval base=runs/base g2rl=runs/g2rl\n"
          "  g2rl explain --model runs/g2rl --rollouts 8\n", f);
}

static void help_command(int c, FILE *f)
{
    const Command *x = &COMMANDS[c];
    fprintf(f, "g2rl %s: %s\n\nusage: g2rl %s%s%s [--option value]... [@file]\n", x->name,
            x->summary, x->name, *x->usage ? " " : "", x->usage);
    options_help(OPTIONS, N_OPTIONS, c, f);
    if (c == DATA)
        fprintf(f, "\n%s", task_help());
    for (size_t i = 0; i < sizeof NOTES / sizeof *NOTES; i++)
        if (NOTES[i].commands >> c & 1)
            fprintf(f, "\n%s", NOTES[i].text);
}

/* A definition that fills more than a line goes on in the next row, without a name. */
static void help_metrics(FILE *f)
{
    static const char *const rows[][2] = {
        {NULL, "metrics.jsonl of train, a line a step; means are over the step's batch:"},
        {"step", "batches of rollouts so far, this one included"},
        {"reward", "mean of r: +1 right, -1 wrong, or what --reward-cmd gave"},
        {"reward_std", "sqrt(mean (r - mean r)^2) of a group, mean over groups"},
        {"pass@1", "responses with r > 0 / responses"},
        {"frac_dead", "groups whose r are all equal (within 1e-6) / groups"},
        {"frac_all_right", "groups whose r are all above 0 / groups"},
        {"frac_all_wrong", "groups none of whose r is above 0 / groups"},
        {"completions/mean_length", "response tokens, end tokens included / responses"},
        {"completions/clipped_ratio", "responses cut off at --max-tokens / responses"},
        {"entropy", "-sum_v p_v ln p_v at temperature T, exact, mean over tokens in the loss"},
        {"kl_exact", "sum_v p_v (ln p_v - ln pref_v), pref: the reference, exact, mean over"},
        {"", "response tokens, before the update; null where no reference is kept"},
        {"kl_k1, kl_k3", "q = ln pref - ln p of the sampled token: mean of -q, of e^q - q - 1;"},
        {"", "null where no reference is kept (--kl-coef 0)"},
        {"clip_low, clip_high", "share of tokens that the clip of Eq 3 holds: A < 0 and ratio"},
        {"", "rho < 1 - clip-low; A > 0 and rho > 1 + clip-high"},
        {"log_ratio_clamped", "tokens whose ln rho or q passed +-20"},
        {"phi/cos_mean", "mean of S_ij over the pairs i < j of each group (Eq 9)"},
        {"phi/neg_ratio", "pairs with S_ij < 0 / pairs"},
        {"phi/nu_mean", "mean of nu_i = max(1 - sum_j w_ij S_ij^2, 0) (Eq 10-11)"},
        {"semantic/cos_mean", "mean over the pairs of the cosines of the responses' embeddings"},
        {"", "(--encoder); null where there is no reference to make them"},
        {"adv/novelty_share", "sum A_i (A_i - mean of A where r is r_i) / sum A_i^2"},
        {"logp_gap", "largest |ln p of the sampler - ln p of the trainer| before any update,"},
        {"", "over a step's first groups; with --recompute, over all"},
        {"loss", "-min(rho A, clip(rho) A) + beta KL - entropy-coef * entropy (Eq 3-4),"},
        {"", "mean as --loss says; KL: as --kl says"},
        {"grad_norm", "sqrt(sum of squares of all gradients), before clipping"},
        {"lr", "the step's learning rate"},
        {"time/PHASE", "seconds; sample, verify, reference, forward, backward, optimizer; of"},
        {"", "passes side by side the first tells forward from backward"},
        {"tokens_per_s", "response tokens / seconds of the whole step"},
        {"weights_hash", "names the weights after the step, bit for bit"},
        {"adapter_hash", "the same of A and B, with --lora"},
        {NULL, "eval.jsonl of train and sft, eval --json: of P problems n samples each, c right:"},
        {"step", "batches trained on so far (eval.jsonl)"},
        {"name", "the model's (eval --json)"},
        {"pass@k", "1 - C(n - c, k) / C(n, k), mean over problems; k = 1, 2, 4, .. n"},
        {"mean@n", "c / n, mean over problems: pass@1 once more"},
        {"maj@k", "1 if the most frequent answer of k samples is right, else 0; of a tie,"},
        {"", "the share of the tied answers that are right; mean over disjoint blocks"},
        {"", "of k, then over problems; k = 16, or n if that is less"},
        {"distinct_right@k", "expected number of distinct right answers among k of the n samples,"},
        {"", "mean over problems; k as for maj. Distinct: of another answer class"},
        {"", "(of maze and reach the whole response, of countdown the set of steps)"},
        {"pass@k/interval, maj@k/interval, distinct_right@k/interval", ""},
        {"", "[26th smallest, 26th largest] of the means of 1,000 resamples of the"},
        {"", "problems that differ: 95 %"},
        {"problems, distinct_problems, samples, temperature", ""},
        {"", "P, how many of them differ, n, T"},
        {"frac_two_right", "problems with two or more distinct right answers / P"},
        {"frac_copies", "right answers beyond the first of their class / right answers"},
        {"frac_all_right, frac_all_wrong", ""},
        {"", "problems with c = n, with c = 0, / P"},
        {"right, maj, distinct_right", ""},
        {"", "c of each problem; maj@k and distinct_right@k of each problem"},
        {"problem_class", "of each problem the first that is the same; only where some repeat"},
        {"phi/cos_mean, phi/neg_ratio, phi/nu_mean, entropy", ""},
        {"", "as above, over all responses"},
        {"completions/mean_length, completions/clipped_ratio", ""},
        {"", "as above, over all responses"},
        {"difference", "from the first model (eval of several): of each metric the mean over"},
        {"", "problems of x - y, its interval from resamples of the pairs (x, y)"},
        {NULL, "metrics.jsonl of sft, a line a step:"},
        {"loss", "-ln p, mean over the batch's tokens that are trained on"},
        {"tokens", "how many these are"},
        {"tokens_per_s", "tokens / seconds of the whole step"},
        {"step, lr, grad_norm, weights_hash, adapter_hash", ""},
        {"", "as above"},
        {NULL, "eval.jsonl of sft --valid:"},
        {"step", "batches trained on so far"},
        {"loss", "-ln p, mean over the tokens of its records that sft would train on"},
        {"tokens", "how many these are"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!rows[i][0])
            fprintf(f, "%s%s\n", i ? "\n" : "", rows[i][1]);
        else if (!*rows[i][1])
            fprintf(f, "  %s\n", rows[i][0]);
        else
            fprintf(f, "  %-26s %s\n", rows[i][0], rows[i][1]);
}

#endif
