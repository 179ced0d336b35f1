/* test_g2rl.c: every test, in one table.
 *
 *   ./test_g2rl               runs them all
 *   ./test_g2rl WORD...       those whose name contains one of the words, or is it (=WORD)
 *   ./test_g2rl --list        names and descriptions
 *
 * They stand in tests/, a file for each part of the program, which is included with its main
 * hidden, so that tests reach every function. Vectors that nobody here wrote lie in tests/; more of
 * them, in ../shared/data, are used where that folder exists, and each test that misses them says
 * so. Tolerances are relative to the norm of what is compared. The exit status is 1 if anything
 * failed. That each test can fail is tested too: see tests/mutants.txt. */
#define _GNU_SOURCE /* posix_openpt */
#include "tests/files_test.h"
#include "tests/tasks_test.h"
#include "tests/ways_test.h"
#include "tests/math_test.h"
#include "tests/kernels_test.h"
#include "tests/model_test.h"
#include "tests/directory_test.h"
#include "tests/method_test.h"
#include "tests/rollouts_test.h"
#include "tests/plain_test.h"
#include "tests/lessons_test.h"
#include "tests/geometry_test.h"
#include "tests/tokenizer_test.h"
#include "tests/commands_test.h"
#include "tests/train_test.h"
#include "tests/machine_test.h"
#include "tests/trust_test.h"
#include "tests/lora_test.h"
#include "tests/rescue_test.h"
#include "tests/problems_test.h"
#include "tests/foreign_test.h"
#include "tests/report_test.h"

typedef struct {
    const char *name, *description;
    void (*run)(void);
} Test;

static const Test TESTS[] = {
#define TEST(name, description) {#name, description, test_##name}
    TEST(json_grammar, "what is JSON and what is not"),
    TEST(json_depth, "nesting is bounded"),
    TEST(json_strings, "escapes, surrogates, UTF-8"),
    TEST(json_numbers, "integers, doubles, overflow"),
    TEST(json_pulling, "keys, items, sticky errors"),
    TEST(json_writer, "what is written reads back equal"),
    TEST(safetensors_round_trip, "written and read back, bit for bit"),
    TEST(safetensors_halves, "every F16 and BF16 value"),
    TEST(safetensors_rounding, "to F16 and BF16: the nearest value, ties to even"),
    TEST(safetensors_mixed, "several dtypes in one file"),
    TEST(safetensors_refused, "bad files, each with its reason"),
    TEST(safetensors_need, "missing and misshapen tensors"),
    TEST(safetensors_shards, "sharded directories, bad indices"),
    TEST(worker_memory, "what work takes from a worker's arena it gives back"),
    TEST(needed_memory, "forecasts of memory leave room for all that grows"),
    TEST(other_cpu, "a program for another processor: one line"),
    TEST(narrow_build, "a 32-bit build is refused"),
    TEST(threads_missing, "--threads that are not there: a warning"),
    TEST(wait_asleep, "threads that wait shall sleep, unless the user says otherwise"),
    TEST(write_file, "a file that cannot take its name"),
    TEST(job_memory, "memory limits of a job, in control groups of both versions, nested"),
    TEST(job_processors, "a container's quota of processor time, in both versions"),
    TEST(task_spec, "task options"),
    TEST(countdown_verifier, "the verifier against its adversaries"),
    TEST(countdown_problems, "solvable, deterministic, held out"),
    TEST(add_task, "addition with carries"),
    TEST(reach_verifier, "the verifier against its adversaries, and of all short responses"),
    TEST(maze_verifier, "the same for mazes"),
    TEST(right_answers, "how many there are, against trying all; percentiles"),
    TEST(corpus, "every right answer as often as the others; the shortest ones"),
    TEST(maze_spellings, "two digits a move: one answer, and a corpus of both alike"),
    TEST(many_problems, "mazes and reach: solvable, deterministic, as their options say"),
    TEST(splits, "training, validation and test have no problem in common"),
    TEST(task_key, "one problem, one key, however it is written"),
    TEST(verify_task, "g2rl verify --task"),
    TEST(math_answers, "pairs of answers and their verdicts"),
    TEST(math_responses, "responses, most of them after a reward for nothing"),
    TEST(math_percent, "a percent sign where the gold answer has none"),
    TEST(math_places, "answers on the next line, in bold, backticks, display math, below headings"),
    TEST(math_mentions, "a mention of a box is no box"),
    TEST(math_units, "units and words around a number; other spellings"),
    TEST(math_reported, "what people reported of verifiers"),
    TEST(math_extract, "where the answer is, in a response and in a data set"),
    TEST(math_normal, "normal forms"),
    TEST(math_values, "the field of residues; numbers beyond doubles"),
    TEST(math_hostile, "deep, long, broken and random answers"),
    TEST(math_shared, "agreement with labels and other verifiers"),
    TEST(math_command, "g2rl verify"),
    TEST(philox, "Random123 known answers"),
    TEST(fma, "one rounding, at ties and among subnormals too"),
    TEST(exp, "exp within 1.01 ulp; NaN stays NaN"),
    TEST(softmax, "log-probs and entropy, tile by tile, against double"),
    TEST(rows, "sums across rows: equal bits, exact ends"),
    TEST(gemm, "every product against a scalar fmaf chain, equal bits"),
    TEST(norm_gradient, "RMSNorm against differences"),
    TEST(heads_gradient, "q/k norm and rotation against differences"),
    TEST(rotary_table, "rotary angles in float32, as transformers makes them"),
    TEST(attention_gradient, "attention with shared prefixes against differences"),
    TEST(swiglu_gradient, "SwiGLU against differences"),
    TEST(linear_gradient, "linear layers and bias against differences"),
    TEST(head_gradient, "the head, two temperatures, against differences"),
    TEST(head_terms, "the gradients of entropy and KL divergence against differences"),
    TEST(model_gradient, "every tensor of whole models against differences"),
    TEST(oracle, "log-probs, phi, gradients, Adam steps of an independent reference"),
    TEST(phi, "Eq 6-7, 14: phi = T d log p / d h, in double"),
    TEST(kl_exact, "the streamed KL divergence against double"),
    TEST(kl_bias, "expected gradients of k2 and k3, by enumeration"),
    TEST(invariance, "equal bits for any threads, packing, micro-batch, neighbours"),
    TEST(masked_vocabulary, "tokens without a text: no share, no gradient"),
    TEST(decoding, "cached decoding equals the training forward, bit for bit"),
    TEST(adamw, "AdamW against double"),
    TEST(schedule, "learning rates"),
    TEST(model_directory, "saved and loaded; the newest checkpoint"),
    TEST(config_errors, "bad configs, each with its field"),
    TEST(config_defaults, "what a config leaves out; older and newer spellings"),
    TEST(generation_config, "generation_config.json decides on end tokens"),
    TEST(config_dtype, "a config with another dtype, the rest as it was"),
    TEST(round_trips, "tied, sharded, F32, BF16, F16, mixed: loaded, saved, loaded"),
    TEST(saved_dtype, "weights saved in another dtype; what it cannot hold"),
    TEST(stored_twice, "a tied head that is stored again"),
    TEST(misfits, "weights that do not fit their config"),
    TEST(method_oracle, "Eq 2, 6-14 on the oracle's groups, both readings, two temperatures"),
    TEST(loss_oracle, "Eq 3-4 and its gradient on the oracle's groups"),
    TEST(token_loss, "the clip's and the KL's derivative in every region"),
    TEST(group_loss, "every choice of loss, KL term, mask and bonus against differences"),
    TEST(evol, "EVOL-RL's similarity, classes and rewards, by hand; both encoders"),
    TEST(encoders, "embeddings of responses"),
    TEST(method_by_hand, "Eq 9-11 on features made by hand; huge rewards; rounding noise"),
    TEST(shaping, "Eq 12-13, Eq 2, dead groups, novelty's share, the random control"),
    TEST(zero_mean, "E[sum phi] = 0 by enumeration"),
    TEST(on_policy, "sampler and trainer agree to the bit, alone, together, threaded"),
    TEST(shared_batch, "few rollouts, large weights: threads share one batch, equal bits"),
    TEST(draws, "draws follow the policy; top-k, top-p, greedy"),
    TEST(saved_activations, "a pass that reads what sampling saved equals one that does not"),
    TEST(groups_stand_alone, "neighbours change no bit; permuting responses permutes results"),
    TEST(plain_differences, "plain.c: every gradient against differences, in double"),
    TEST(plain_steps, "Eq 2-14 and whole training steps against plain.c"),
    TEST(plain_maze, "plain.c: its mazes, examples and verdicts against the task's"),
    TEST(plain_counts, "plain.c: pass@k and the vote"),
    TEST(plain_softmax, "plain.c: softmax by its definition, large numbers"),
    TEST(plain_rmsnorm, "plain.c: RMSNorm by its definition, gradients by differences"),
    TEST(plain_attention, "plain.c: attention by its definition, gradients by differences"),
    TEST(plain_sampling, "plain.c: each token is the one that its random number falls on"),
    TEST(plain_feature, "plain.c: phi = T dlog p / dh by differences; its mean is 0"),
    TEST(plain_sequence_feature, "plain.c: Phi and S by hand"),
    TEST(plain_novelty, "plain.c: Eq 10-11 and nubar by hand"),
    TEST(plain_shaping, "plain.c: Eq 12-13 and Eq 2 by hand"),
    TEST(plain_clip, "plain.c: Eq 3-4 by its definition, its derivative by differences"),
    TEST(pass_at_k, "pass@k against counting subsets"),
    TEST(majority, "maj@k with ties in expectation, every small case"),
    TEST(bootstrap, "bootstrap intervals against all resamples"),
    TEST(bootstrap_class, "classes of equal problems, drawn whole, against all resamples"),
    TEST(paired, "differences by pairs; a model against itself"),
    TEST(mean_interval, "Student's t; intervals over runs"),
    TEST(correlation, "Pearson, Spearman with ties, weights as repetitions"),
    TEST(group_bootstrap, "intervals from groups, not from their pairs"),
    TEST(true_gradients, "of each response, against plain.c's in double; their cosines"),
    TEST(zero_mean_check, "holds on-policy; not at another temperature, nor without end tokens"),
    TEST(geometry_counts, "pairs, histograms, Eq 8's sums by hand"),
    TEST(geometry_rewards, "pairs of right and wrong responses"),
    TEST(other_ruler, "texts of sampled responses, measured by another model"),
    TEST(geometry_truth, "distinct pairs alone, at most 500 of them written out"),
    TEST(tokenizer, "the character vocabulary"),
    TEST(pieces, "the regular expressions of GPT-2, Qwen and Llama 3, cut by hand"),
    TEST(nfc, "normal form C; letters, numbers and white space of Unicode"),
    TEST(bpe_vectors, "text to ids and back against the tokenizers library"),
    TEST(bpe_options, "what a tokenizer.json may ask for"),
    TEST(bpe_bytes, "any bytes, both ways"),
    TEST(tokenizer_refused, "what is not supported, each with its name"),
    TEST(bos, "the token that begins a prompt"),
    TEST(chat, "the chat templates of Qwen3, ChatML and Llama 3"),
    TEST(tokenize, "the command tokenize"),
    TEST(bpe_model, "a model with a BPE tokenizer: checkpoints, score, sample"),
    TEST(foreign_tokenizer, "a tokenizer with more ids than the model has"),
    TEST(options, "the option table, option files"),
    TEST(command_line, "wrong command lines, help"),
    TEST(help, "help and version where people look for them"),
    TEST(progress, "the line of progress on narrow and dumb terminals"),
    TEST(sft, "sft's loss against score; labels; file order"),
    TEST(train_repeats, "equal runs for equal seeds, any threads and micro-batch"),
    TEST(mean_of_updates, "the loss and norm of a step of several updates"),
    TEST(threads, "equal bits with 1, 2, 3 and 7 threads, whatever the command"),
    TEST(methods_repeat, "every method and loss: equal runs for any threads, --recompute or not"),
    TEST(preset_tokenizer, "a preset with a tokenizer of one's own"),
    TEST(saved_files, "saved models take tokenizer, templates and config along"),
    TEST(lambda_zero, "lambda 0 is GRPO to the bit; several updates a step"),
    TEST(ledger, "the ledger's numbers make its advantages"),
    TEST(resume, "N steps are k steps, --resume and N - k steps, in every file"),
    TEST(resume_refused, "what --resume does not go on with"),
    TEST(cut_lines, "a run's files, cut back to a step"),
    TEST(incomplete, "checkpoints that are not whole, or do not fit"),
    TEST(keep, "--keep, and whose checkpoints go"),
    TEST(interrupt, "SIGINT, SIGTERM, and a second one"),
    TEST(saved_on_error, "an error ends a run: its last whole step is saved; evaluations too"),
    TEST(save_by_default, "without --save-every: before evaluations, the newest kept"),
    TEST(heard_soon, "signals in the midst of an evaluation or a step"),
    TEST(closed_stderr, "nobody reads stderr: as SIGTERM"),
    TEST(nothing_left, "a run refused at its first step; what --force replaces and does not hide"),
    TEST(keep_others, "checkpoints that hold what the run has not put there"),
    TEST(resume_schedule, "--resume with other --steps under a schedule that ends with them"),
    TEST(resume_elsewhere, "from another directory, by other paths, with a base trained on"),
    TEST(replay_base, "replay with another base than the run's"),
    TEST(max_prompt_task, "--max-prompt: of a task another problem is drawn"),
    TEST(sampling_policy, "several updates a step: the ledger's entropy is the sampler's"),
    TEST(no_signal, "steps without an advantage: said, and stopped after a few"),
    TEST(reward_values, "what programs print as a reward; --adam-eps 0"),
    TEST(out_is_model, "--out that holds --model"),
    TEST(short_ledger, "--ledger short"),
    TEST(not_finite, "a gradient, weight or moment that is not finite: named, never saved"),
    TEST(run_failures, "a full disk, a directory that vanishes, is read-only or in use"),
    TEST(output_failures, "what is printed: full disk, closed file, a pipe that nobody reads"),
    TEST(input_failures, "links in a loop, directories, devices, pipes in the place of files"),
    TEST(cut_weights, "a file of weights that is cut while it is read"),
    TEST(no_memory, "less and less memory: a line, and no crash"),
    TEST(lora_oracle, "adapters: log-probs, gradients of A and B, Adam steps of PEFT"),
    TEST(lora_files, "adapters as PEFT writes them: ranks, scales, dtypes; written and read"),
    TEST(lora_refused, "adapters that are not supported, each with its reason"),
    TEST(lora_train, "adapters in sft, train, resume, eval, replay, merge: equal bits"),
    TEST(replay, "a rollout of a run again, alone"),
    TEST(explain, "explain --data --json against the oracle"),
    TEST(explained, "explain's sentences, on groups made by hand"),
    TEST(eval, "eval's numbers belong together"),
    TEST(eval_features, "an evaluation's features have the sampler's temperature"),
    TEST(distinct_right, "distinct right answers against all subsets"),
    TEST(distinct_problems, "problems of an evaluation differ; classes of those that repeat"),
    TEST(eval_rows, "several temperatures, --responses"),
    TEST(judged_commands, "--verifier and --reward-cmd of sft and geometry; ids need no tokenizer"),
    TEST(geometry, "the command: members, threads, agreement with eval"),
    TEST(geometry_inputs, "prompts alone, another tokenizer, too little memory"),
    TEST(metrics, "help metrics defines what the files hold"),
    TEST(sample_file, "sample of the prompts of a file"),
    TEST(own_problems, "problems that only look like a task's, in train and sft"),
    TEST(sample, "streamed text, --stop, --temperature 0"),
    TEST(sft_text, "plain text as records; the loss of --valid"),
    TEST(preflight, "the first batch: what it says, and where it ends the run"),
    TEST(data, "problem files, good and bad"),
    TEST(template, "what each template makes of a prompt"),
    TEST(template_training, "templates in sft and train"),
    TEST(problem_records, "GSM8K, MATH, SVAMP, whole; bad records by line and field"),
    TEST(judge, "which verifier judges, answer classes, gold answers"),
    TEST(math_votes, "maj@k over equal answers"),
    TEST(gold_answers, "answers that their own verifier refuses"),
    TEST(long_prompts, "prompts over the limit are left out, and counted"),
    TEST(stop, "responses that end at a text"),
    TEST(stop_tokens, "special tokens, ends of turns and several texts end a response"),
    TEST(chat_template, "a model's chat template is named where it is not used"),
    TEST(turn_end, "the end token of a given response"),
    TEST(unplaced_tensors, "tensors that the model has no place for are named"),
    TEST(declared_tokens, "tokens that tokenizer.json leaves to other files"),
    TEST(one_bos, "a text that brings its beginning-of-text token gets no second one"),
    TEST(overflowing_logits, "finite weights whose logits are not: a line, status 1"),
    TEST(windows_files, "byte order marks and CRLF are read; what is no JSONL is named"),
    TEST(null_is_missing, "null stands for a missing member"),
    TEST(lfs_pointer, "Git LFS pointers and archives in the place of files"),
    TEST(model_type_first, "the model_type is the first thing said of a config"),
    TEST(conversations, "messages as transformers renders them: every id, and what is trained on"),
    TEST(message_records, "prompt, response or both as messages make one record; bad ones"),
    TEST(message_system, "--system before messages; prompts of train that are messages"),
    TEST(long_records, "sft leaves out records that are too long, and counts them"),
    TEST(model_card, "a checkpoint has a README.md of its own"),
    TEST(reward_failures, "each way in which a reward command fails"),
    TEST(reward_end, "no end of ours leaves the command running"),
    TEST(reward_exchange, "order, full pipes, exact requests"),
    TEST(reward_story, "the example of a reward command"),
    TEST(real_rewards, "Eq 2, 12 and dead groups for rewards of any size"),
    TEST(reward_cmd, "rewards from a command in train, eval and explain"),
    TEST(problem_files, "explain and --eval-every on a file"),
    TEST(report_values, "means, intervals and paired differences by hand"),
    TEST(frontier, "paths made up: half speed, an offset, one that turns back"),
    TEST(frontier_seeds, "which seeds count; Student's t over them"),
    TEST(frontier_problems, "its interval against all samples of problems, by class"),
    TEST(frontier_report, "measure, learning rates and classes, from files to the tables"),
    TEST(report_against_base, "before and after, without a frontier; a small p"),
    TEST(report_page, "a well-formed page that escapes what files say"),
    TEST(report_absent, "panels without data"),
    TEST(report_unfinished, "a last line that is still being written"),
    TEST(report_refused, "bad files of runs, each with line and field"),
    TEST(report_csv, "two files, a row a step, empty cells, quoted names"),
    TEST(report_skips, "what stands beside the runs, each with a word"),
    TEST(svg_parts, "ticks, escaped text, running means"),
    TEST(bench, "the benchmark's rows and counts"),
};
enum { N_TESTS = sizeof TESTS / sizeof *TESTS };

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '=' ? !strcmp(name, argv[i] + 1) : strstr(name, argv[i]) != NULL)
            return true;
    return argc == 1;
}

static void remove_tmp(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", tmp_dir());
    if (system(command))
        warn("%s: cannot be removed", tmp_dir());
}

/* Two threads write one place: `make race` must see it. */
static int planted_race(void)
{
    int sum = 0;
    PARALLEL_FOR (3)
    for (int i = 0; i < 300; i++)
        sum += i;
    return sum < 0;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    self = argv[0];
    if (argc > 1 && !strcmp(argv[1], "--waits"))
        return print_waiting(argc, argv);
    wait_asleep(argv);
    if (argc > 1 && !strcmp(argv[1], "--cli")) /* see cli_child */
        return run_command(argc - 1, argv + 1);
    if (argc == 2 && !strcmp(argv[1], "--race"))
        return planted_race();
    if (argc == 2 && !strcmp(argv[1], "--list")) {
        for (int i = 0; i < N_TESTS; i++)
            printf("%-20s %s\n", TESTS[i].name, TESTS[i].description);
        return 0;
    }
    tmp_dir();
    for (int i = 0; i < N_TESTS; i++) {
        double start = now_seconds();
        if (!wanted(TESTS[i].name, argc, argv))
            continue;
        n_checks = n_failures = 0;
        TESTS[i].run();
        bool good = n_failures == 0 && n_checks > 0;
        passed += good;
        failed += !good;
        printf("%s  %-22s %7d checks  %5.2f s   %s\n", good ? "ok  " : "FAIL", TESTS[i].name,
               n_checks, now_seconds() - start, TESTS[i].description);
        fflush(stdout);
    }
    remove_tmp();
    printf("%d passed, %d failed, %d skipped\n", passed, failed, n_skips);
    return failed || !passed;
}
