/* problems.h: tests of problems from files, prompts, rewards. */
#ifndef TESTS_PROBLEMS_H
#define TESTS_PROBLEMS_H

#include "method_test.h"
#include "tasks_test.h"
#include "train_test.h"

static const char *rendered(const Template *t, const char *problem)
{
    static Buf out;
    out.n = 0;
    template_render(t, problem, &out);
    return out.s;
}

/* What each template makes of a problem, and that the commands apply it. */
static void test_template(void)
{
    Template plain = template_open("plain", NULL), qwen3 = template_open("qwen3", NULL);
    Template both = template_open("qwen3", "S {prompt}");
    Template chatml = template_open("chatml", NULL), llama3 = template_open("llama3", "S\n");
    CHECK(!strcmp(rendered(&chatml, "U"), "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
          "chatml: %s", rendered(&chatml, "U"));
    CHECK(!strcmp(rendered(&llama3, "U "), "<|begin_of_text|><|start_header_id|>system"
                  "<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU"
                  "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"), "llama3: %s",
          rendered(&llama3, "U "));
    CHECK(!strcmp(rendered(&plain, "a {system} b"), "a {system} b"), "plain");
    CHECK(!strcmp(rendered(&qwen3, "U"), "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"),
          "qwen3: %s", rendered(&qwen3, "U"));
    CHECK(!strcmp(rendered(&both, "U"), "<|im_start|>system\nS {prompt}<|im_end|>\n<|im_start|>user"
                                        "\nU<|im_end|>\n<|im_start|>assistant\n"),
          "qwen3 with a system text: %s", rendered(&both, "U"));
    Path file = put_file("t.txt", "{x} \\boxed{} {system}: {prompt}{\nA: {prompt} {prom\n\n");
    Template t = template_open(file.s, "S{prompt}"), u = template_open(file.s, NULL);
    const char *braces = "{x} \\boxed{} S{prompt}: {system}{\nA: {system} {prom\n";
    CHECK(!strcmp(rendered(&t, "{system}"), braces), "a file: %s", rendered(&t, "{system}"));
    CHECK(!strncmp(rendered(&u, "q"), "{x} \\boxed{} : q{", 17), "no system text");
    template_free(&t);
    template_free(&u);
    t = template_open("data/gsm8k_fewshot.txt", NULL);
    const char *end = "\n\nQuestion: How many?\nAnswer:", *few = rendered(&t, "How many?");
    CHECK(strlen(few) > 500 && !strcmp(few + strlen(few) - strlen(end), end), "few-shot: %s", few);
    template_free(&t);

    const char *base = base_model();
    char once[256];
    put_file("four.txt", "4+{prompt}\n");
    put_file("none.txt", "Question: {Prompt}\n");
    cli("sample --model %s --prompt 4+5: --temperature 0", base);
    snprintf(once, sizeof once, "%.255s", cli_out);
    CHECK(cli("sample --model %s --prompt 5: --temperature 0 --template %s/four.txt", base,
              tmp_dir()) == 0 && !strcmp(cli_out, once), "sample: %s%s", cli_out, cli_err);
    cli("explain --model %s --prompt 4+5: --rollouts 2 --json", base);
    snprintf(once, sizeof once, "%.200s", cli_out);
    CHECK(cli("explain --model %s --prompt 5: --rollouts 2 --json --template %s/four.txt "
              "--task add:digits=1 --verifier add", base, tmp_dir()) == 0 &&
              !strncmp(cli_out, once, strlen(once)), "explain: %s%s", cli_out, cli_err);
    CHECK(cli("sample --model %s --prompt 5: --template %s/none.txt", base, tmp_dir()) == 1 &&
              strstr(cli_err, "none.txt: no {prompt}"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 5: --template %s/four.txt --system x", base,
              tmp_dir()) == 1 && strstr(cli_err, "four.txt: no {system}"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 5: --template chatlm", base) == 1 &&
              strstr(cli_err, "chatlm") && strstr(cli_err, "qwen3"), "%s", cli_err);
    CHECK(cli("sample --model %s --prompt 5: --system x", base) == 2 &&
              strstr(cli_err, "--template"), "%s", cli_err);
}

/* --template in sft and train: the model reads the prompt as rendered, the ledger and the verifier
 * see the problem. */
static void test_template_training(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    put_file("four.txt", "4+{prompt}\n");
    put_file("whole.jsonl", "{\"prompt\": \"4+5:\", \"response\": \"4+5=9,9\"}\n");
    put_file("part.jsonl", "{\"prompt\": \"5:\", \"response\": \"4+5=9,9\"}\n");
    cli("sft --model %s --data %s/whole.jsonl --steps 1 --batch 1 --out %s/whole", base, dir, dir);
    CHECK(cli("sft --model %s --data %s/part.jsonl --steps 1 --batch 1 --out %s/part "
              "--template %s/four.txt", base, dir, dir, dir) == 0, "%s", cli_err);
    Model m = model_load(tmp_path("whole").s), n = model_load(tmp_path("part").s);
    CHECK(weights_hash(&m) == weights_hash(&n), "sft: the template makes another prompt");
    model_free(&m);
    model_free(&n);
    size_t length;
    put_file("five.jsonl", "{\"prompt\": \"5:\", \"answer\": \"9\"}\n");
    CHECK(cli("train --model %s --data %s/five.jsonl --verifier exact --template %s/four.txt "
              "--steps 1 --prompts 1 --rollouts 8 --force --out %s/five", base, dir, dir, dir) == 0,
          "%s", cli_err);
    char *text = read_file(tmp_path("five/rollouts.jsonl").s, &length);
    CHECK(strstr(text, "\"prompt\": \"5:\"") && strstr(text, "\"response\": \"4+5="), "%.300s",
          text);
    free(text);
    text = read_file(tmp_path("five/run.json").s, &length);
    CHECK(strstr(text, "four.txt") && strstr(text, "\"verifier\": \"exact\""), "%s", text);
    free(text);
}

static void check_problem(const char *line, const char *prompt, const char *answer)
{
    Problems p = problems_read(put_file("one.jsonl", line).s, true);
    CHECK(p.n == 1 && !strcmp(p.problem[0].prompt, prompt) && !strcmp(p.problem[0].answer, answer),
          "%s: '%s', '%s'", line, p.problem[0].prompt, p.problem[0].answer);
    problems_free(&p);
}

/* Whole published files, and what their answers are when a verifier has read them. */
static void check_problem_sets(void)
{
    static const struct {
        const char *path;
        int problems, last_line;
        const char *first_answer;
    } sets[] = {
        {"sets/gsm8k/train.jsonl", 7473, 7473, "72"}, {"sets/gsm8k/test.jsonl", 1319, 1319, "18"},
        {"sets/svamp/test.jsonl", 1000, 1000, "145.0"}, {"sets/math500/test.jsonl", 500, 500, NULL},
        {"sets/math/cs336_train.jsonl", 7500, 7500, "16"}};
    for (int i = 0; i < 5; i++) {
        Path path;
        if (!shared_dir(&path, sets[i].path)) {
            skip("no ../shared/data/sets");
            return;
        }
        Problems p = problems_read(path.s, true);
        CHECK(p.n == sets[i].problems && p.problem[p.n - 1].line == sets[i].last_line, "%s: %d",
              path.s, p.n);
        Task task = task_of("countdown");
        p.judge = judge_new(VERIFY_AUTO, &task, p.problem[0].prompt);
        CHECK(p.judge.verifier == VERIFY_MATH, "auto: verifier %d", (int)p.judge.verifier);
        problems_check_gold(&p, true);
        CHECK(p.n >= sets[i].problems * 0.99, "%s: %d answers verify", path.s, p.n);
        if (sets[i].first_answer)
            CHECK(!strcmp(p.problem[0].answer, sets[i].first_answer), "%s: the first answer is %s",
                  path.s, p.problem[0].answer);
        problems_free(&p);
    }
}

/* Every form of record that published files have; the field, line and file of what is wrong. */
static void test_problem_records(void)
{
    check_problem("{\"question\": \"How?\", \"answer\": \"So\\n#### 18\"}", "How?", "So\n#### 18");
    check_problem("{\"problem\": \"P\", \"solution\": \"\\\\boxed{7}\", \"level\": [1, {}]}", "P",
                  "\\boxed{7}");
    check_problem("{\"answer\": \"7\", \"problem\": \"P\", \"solution\": \"so 8\"}", "P", "7");
    check_problem("{\"Answer\":145.0,\"Question\":\"How big?\",\"Equation\":\"( 290.0 \\/ 2.0 )\","
                  "\"Body\":\"There are 87.\",\"Type\":\"D\"}", "There are 87. How big?", "145.0");
    check_problem("{\"prompt\": \"p\", \"answer\": -1.50e3}", "p", "-1.50e3");
    check_problem("{\"prompt\": \"a\xE2\x80\xA8\xC2\x85z\", \"answer\": \"1\"}\r\n",
                  "a\xE2\x80\xA8\xC2\x85z", "1");
    check_problem("{\"prompt\": \"p\", \"answer\": \"\"}", "p", "");
    check_problem("{\"prompt\": \"p\", \"answer\": \"so 8\", \"ground_truth\": 7}", "p", "7");
    check_problem("{\"prompt\": \"p\", \"output\": \"7\", \"ground_truth\": null}", "p", "7");
#define TURN(role, content) "{\"role\": \"" role "\", \"content\": \"" content "\"}"
    check_problem("{\"prompt\": [" TURN("user", "p") "], \"answer\": 7}", "p", "7");
    check_problem("{\"prompt\": \"other\", \"messages\": [{\"content\": \"p\", \"role\": \"user\", "
                  "\"name\": null}, " TURN("assistant", "7") "]}", "p", "7");
    check_problem("{\"messages\": [" TURN("user", "p") ", " TURN("assistant", "so 7") "], "
                  "\"answer\": \"7\"}", "p", "7");
    static const char *const bad[][2] = {
        {"{\"prompt\": \"p\", \"answer\": [1]}", "line 17: answer: expected a string or a number"},
        {"{\"prompt\": 5, \"answer\": 1}", "line 17: prompt: expected a string"},
        {"{\"question\": \"q\\x\", \"answer\": 1}", "line 17: question: "},
        {"{\"prompt\": \"p\", \"answer\": tru}", "line 17: answer: "},
        {"{\"prompt\": \"p\", \"solution\": [4]}", "line 17: solution: "},
        {"{\"messages\": \"p\", \"answer\": 1}", "line 17: messages: expected an array"},
        {"{\"messages\": [], \"answer\": 1}", "line 17: messages: expected messages"},
        {"{\"prompt\": [{\"role\": \"user\"}], \"answer\": 1}", "line 17: messages: expected con"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": 5}], \"answer\": 1}",
         "line 17: messages: expected a string"},
        {"{\"messages\": [{\"role\": \"user\", \"tools\": 1}], \"answer\": 1}",
         "line 17: messages: 'tools'; expected role and content"},
        {"{\"messages\": [" TURN("system", "p") "], \"answer\": 1}",
         "line 17: messages: the last is of role system; expected the user's"},
        {"{\"messages\": [" TURN("user", "p") "]}", "line 17: no answer"},
        {"{\"messages\": [" TURN("user", "p") "], \"prompt\": [" TURN("user", "p") "]}",
         "line 17: messages: given twice"},
        {"{\"prompt\": [" TURN("system", "s") ", " TURN("user", "p") "], \"answer\": 1}",
         "line 17: messages; they need --template qwen3|"},
        {"{\"prompt\": \"p\", \"answer\": 01}", "line 17: "},
        {"{\"prompt\": \"p\", \"answer\": 1", "line 17: "},
        {"{\"prompt\": \"p\"}", "line 17: no answer"},
        {"{\"answer\": \"p\"}", "line 17: no question"},
        {"[]", "line 17: expected an object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Buf b = {0};
        for (int line = 1; line < 17; line++)
            buf_str(&b, line == 3 ? " \n" : "{\"prompt\": \"p\", \"answer\": 1}\n");
        buf_str(&b, bad[i][0]);
        put_file("bad17.jsonl", b.s);
        buf_free(&b);
        CHECK(cli("data --data %s/bad17.jsonl", tmp_dir()) == 1 && strstr(cli_err, "bad17.jsonl") &&
                  strstr(cli_err, bad[i][1]) && strchr(cli_err, '\n')[1] == 0,
              "%s: %s", bad[i][0], cli_err);
    }
    Problems p = problems_read(put_file("one.jsonl", "{\"prompt\": \"p\"}\n").s, false);
    CHECK(p.n == 1 && !*p.problem[0].answer, "answers are not always needed");
    problems_free(&p);
    check_problem_sets();
}

/* Auto: the task that draws; of a file, the task whose first prompt it is, --task before others. */
static void check_auto(const Task *countdown, const Task *add)
{
    static const struct {
        const char *task, *prompt;
        Verifier verifier;
        const char *spec; /* of the judge's task, where there is one */
    } table[] = {
        {"countdown:numbers=3", "357>26:", VERIFY_COUNTDOWN, "countdown:numbers=3,max=9"},
        {"countdown:numbers=3", "9357>26:", VERIFY_COUNTDOWN, "countdown:numbers=4,max=9"},
        {"countdown:max=12,numbers=2", "12,7>19:", VERIFY_COUNTDOWN, "countdown:numbers=2,max=12"},
        {"countdown:max=12", "57>26:", VERIFY_COUNTDOWN, "countdown:numbers=2,max=9"},
        {"add", "357>26:", VERIFY_COUNTDOWN, "countdown:numbers=3,max=9"},
        {"countdown", "37,4>26:", VERIFY_REACH,
         "reach:digits=2,steps=4,shortest=1,max=99,teacher=uniform"},
        {"reach:digits=2,steps=6,max=50", "37,4>26:", VERIFY_REACH,
         "reach:digits=2,steps=6,shortest=1,max=50,teacher=uniform"},
        {"reach:steps=6", "37,4>26:", VERIFY_REACH,
         "reach:digits=2,steps=4,shortest=1,max=99,teacher=uniform"},
        {"countdown", "312222110:", VERIFY_MAZE, "maze:size=3,loops=3,spellings=1,teacher=uniform"},
        {"maze:loops=0", "312222110:", VERIFY_MAZE,
         "maze:size=3,loops=3,spellings=1,teacher=uniform"},
        {"reach", "123+456:", VERIFY_ADD, "add:digits=3"},
        {"countdown", "37,4>126:", VERIFY_MATH, NULL},
        {"countdown", "312223110:", VERIFY_MATH, NULL},
        {"countdown", "57,12>26:", VERIFY_MATH, NULL},
        {"countdown", "What is 1:", VERIFY_MATH, NULL},
        {"countdown", "1+2=", VERIFY_MATH, NULL},
        {"countdown", "", VERIFY_MATH, NULL},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        Task t = task_of(table[i].task);
        Judge j = judge_new(VERIFY_AUTO, &t, table[i].prompt);
        Buf spec = {0};
        task_spec(&j.task, &spec);
        CHECK(j.verifier == table[i].verifier && (!table[i].spec || !strcmp(spec.s, table[i].spec)),
              "auto, --task %s, '%s': verifier %d, %s", table[i].task, table[i].prompt,
              (int)j.verifier, spec.s);
        buf_free(&spec);
    }
    for (int kind = 0; kind < N_TASKS; kind++) {
        Task t = task_of(TASKS[kind].name);
        Judge j = judge_new(VERIFY_AUTO, &t, NULL);
        const char *name = TASKS[kind].name;
        Verifier named = (Verifier)choice_index(VERIFIERS, name, strlen(name));
        CHECK(j.verifier == named && (int)j.task.kind == kind, "auto, drawn: %s", TASKS[kind].name);
        j = judge_new(named, countdown, NULL);
        CHECK((int)j.task.kind == kind, "--verifier %s", TASKS[kind].name);
    }
    Judge j = judge_new(VERIFY_ADD, add, "1234+5678:");
    CHECK(j.task.digits == 4, "the verifier's task reads the prompt");
    j = judge_new(VERIFY_COUNTDOWN, add, "no prompt");
    CHECK(j.task.kind == TASK_COUNTDOWN && j.task.numbers == 4, "or has its defaults");
}

/* Which verifier judges, what it says, and which answers vote together. */
static void test_judge(void)
{
    Task countdown = task_of("countdown:numbers=3"), add = task_of("add:digits=3");
    check_auto(&countdown, &add);
    Judge j = judge_new(VERIFY_ADD, &countdown, "12+34:");
    CHECK(j.task.kind == TASK_ADD && j.task.digits == 2, "another task's verifier: its defaults");
    CHECK(judge_new(VERIFY_ADD, &add, NULL).task.digits == 3, "the task's own options stay");
    CHECK(judge(&j, "12+34:", "", "2+4=6,1+3=4,46").right && !judge(&j, "12+34:", "46", "46").right,
          "add");
    j = judge_new(VERIFY_COUNTDOWN, &countdown, NULL);
    CHECK(judge(&j, "357>26:", "", "3*7=21,21+5=26").right, "countdown needs no gold answer");
    j = judge_new(VERIFY_EXACT, &countdown, NULL);
    CHECK(judge(&j, "p", "a b\n", " \ta b").right && !judge(&j, "p", "a b", "a  b").right &&
              !judge(&j, "p", "a b", "A b").right, "exact");
    j = judge_new(VERIFY_MATH, &countdown, NULL);
    CHECK(judge(&j, "p", "18", "So it is \\boxed{18}.").right && !judge(&j, "p", "18", "17").right,
          "math");
    Buf a = {0}, b = {0};
    judge_class(&j, "p", "it is \\boxed{18}", &a);
    judge_class(&j, "p", "#### 18.0", &b);
    CHECK(judge_same(&j, a.s, b.s), "'%s' and '%s' vote together", a.s, b.s);
    judge_class(&j, "p", "\\boxed{19}", &b);
    CHECK(!judge_same(&j, a.s, b.s), "'%s' and '%s' do not", a.s, b.s);
    judge_class(&j, "p", "I do not know", &a);
    judge_class(&j, "p", "who knows", &b);
    CHECK(!judge_same(&j, a.s, b.s) && judge_same(&j, a.s, a.s), "no answer stands for itself");
    CHECK(judge_gold(&j, "p", "It is so.\n#### 1,234", &a).right &&
              judge(&j, "p", a.s, "1234").right, "gold of GSM8K: %s", a.s);
    CHECK(judge_gold(&j, "p", "so \\boxed{7}", &a).right && !strcmp(a.s, "7"), "of MATH: %s", a.s);
    CHECK(judge_finds(&j, "p", "#### 18") && !judge_finds(&j, "p", "who knows") &&
              judge_finds(&j, "p", "\\boxed{?1}") && !judge_finds(&j, "p", "\\boxed{}"),
          "is there one?");
    j.verifier = VERIFY_EXACT;
    CHECK(!judge_gold(&j, "p", "", &a).right, "an empty answer is none");
    CHECK(judge_finds(&j, "p", "?") && !judge_finds(&j, "p", " \n"), "exact: any text is one");
    buf_free(&a, &b);
}

/* maj@k over answer classes: two ways of writing the right answer outvote one wrong one. */
static void test_math_votes(void)
{
    Engine e = engine_new(1, 1 << 20, 64);
    Tokenizer t = tokenizer_characters("0123456789.\\boxed{} ");
    Task task = task_of("countdown");
    Judge j = judge_new(VERIFY_MATH, &task, "words");
    const char *response[4] = {"\\boxed{4}", "\\boxed{5}", "\\boxed{4.0}", "\\boxed{4}"};
    Group g = group_new(&e.arena, 4, 4, 40, 1);
    g.text = "p";
    g.answer = "4.0";
    for (int i = 0; i < 4; i++) {
        size_t bad;
        Ids ids = {0};
        tokenizer_encode(&t, response[i], strlen(response[i]), &ids, &bad);
        memcpy(g.token + g.start[i], ids.id, (size_t)ids.n * sizeof(int));
        g.start[i + 1] = g.start[i] + ids.n;
        ids_free(&ids);
        g.truncated[i] = i == 0;
    }
    verify_groups(&g, 1, &j, &t);
    CHECK(g.reward[0] < 0 && g.reward[1] < 0 && g.reward[2] > 0 && g.reward[3] > 0, "rewards");
    int class[4];
    group_classes(&g, &j, &t, class);
    CHECK(class[0] == 0 && class[1] == 1 && class[2] == 2 && class[3] == 2,
          "4.0 and 4 are one answer; what was cut off is its own: %d %d %d %d", class[0], class[1],
          class[2], class[3]);
    double maj[2] = {0}, distinct[2] = {0};
    Evaluation ev = {.maj = maj, .distinct_right = distinct, .few = 4};
    evaluate_classes(&ev, 0, &g, class);
    CHECK(maj[0] == 1 && distinct[0] == 1, "4.0 and 4: two votes, one answer");
    ev.few = 2;
    evaluate_classes(&ev, 1, &g, class);
    CHECK(maj[1] == 0.5, "a block of wrong ones, a block of right ones");
    tokenizer_free(&t);
    engine_free(&e);
}

/* Answers that their own verifier refuses: counted, named, left out of training. */
static void test_gold_answers(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    put_file("gold.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n\n"
                           "{\"prompt\": \"4+5:\", \"answer\": \"4+5=8,8\"}\n"
                           "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n"
                           "{\"prompt\": \"45:\", \"answer\": \"9\"}\n");
    CHECK(cli("train --model %s --task add:digits=1 --data %s/gold.jsonl --steps 2 --prompts 2 "
              "--rollouts 2 --out %s/gold", base, dir, dir) == 0 &&
              strstr(cli_err, "2 of 4 answers") && strstr(cli_err, "line 3, 5"), "%s", cli_err);
    size_t n;
    char *text = read_file(tmp_path("gold/rollouts.jsonl").s, &n);
    CHECK(strstr(text, "\"1+2:\"") && strstr(text, "\"4+5:\"") && !strstr(text, "\"45:\"") &&
              !strstr(text, "4+5=8,8"), "what is left out is trained on");
    free(text);
    text = read_file(tmp_path("gold/run.json").s, &n);
    CHECK(strstr(text, "\"verifier\": \"add\""), "run.json names the verifier that auto chose");
    free(text);
    CHECK(cli("eval --model %s --task add:digits=1 --data %s/gold.jsonl --samples 2 --json", base,
              dir) == 0 && strstr(cli_err, "2 of 4 answers") && field(cli_out, "problems") == 4,
          "eval keeps them: %s%s", cli_err, cli_out);
    CHECK(cli("train --model %s --data %s/gold.jsonl --verifier countdown --out %s/none", base, dir,
              dir) == 1 && strstr(cli_err, "gold.jsonl: no answer is right") &&
              strstr(cli_err, "--verifier") &&
              !is_dir(tmp_path("none").s), "another task's problems: %s", cli_err);
    CHECK(cli("train --model %s --data %s/gold.jsonl --eval-every 1 --out %s/none", base, dir,
              dir) == 2 && strstr(cli_err, "expected --eval-data"), "--task is not the data's: %s",
          cli_err);
    CHECK(cli("eval --model %s --data %s/gold.jsonl --verifier exact --samples 2 --json", base,
              dir) == 0 && !strstr(cli_err, "answers"), "exact takes them all: %s", cli_err);
}

/* Prompts that are too long are left out before training, and it says how many. */
static void test_long_prompts(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    const char *common = "--task add:digits=1 --steps 2 --prompts 2 --rollouts 2 --max-tokens 20";
    put_file("short.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n"
                            "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n");
    put_file("long.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"4+5=9,9\"}\n"
                           "{\"prompt\": \"44+55:\", \"answer\": \"\"}\n"
                           "{\"prompt\": \"1+2:\", \"answer\": \"1+2=3,3\"}\n");
    cli("train --model %s %s --data %s/short.jsonl --out %s/short", base, common, dir, dir);
    CHECK(cli("train --model %s %s --data %s/long.jsonl --reward-cmd %s --max-prompt 4 "
              "--out %s/long", base, common, dir, "no_such_command", dir) == 1 &&
              strstr(cli_err, "dropped 1 of 3 problems (33.3 %): prompts over 4 tokens") &&
              strstr(cli_err, "long.jsonl"), "%s", cli_err);
    Problems p = problems_read(tmp_path("long.jsonl").s, true);
    Tokenizer t = tokenizer_characters(TASK_ALPHABET);
    problems_fit(&p, &t, 5);
    CHECK(p.n == 2 && p.longest == 4 && p.problem[1].line == 3, "%d kept, longest %d", p.n,
          p.longest);
    problems_free(&p);
    p = problems_read(tmp_path("long.jsonl").s, true);
    problems_fit(&p, &t, 6);
    CHECK(p.n == 3 && p.longest == 6, "a prompt of just the limit stays");
    p.template = (Template){TEMPLATE_FILE, NULL, (char *)"11{prompt}{prompt}"};
    problems_fit(&p, &t, 10);
    CHECK(p.n == 2 && p.longest == 10, "the template counts: longest %d", p.longest);
    problems_free(&p);
    tokenizer_free(&t);
    CHECK(cli("eval --model %s --task add:digits=1 --data %s/short.jsonl --max-prompt 3", base,
              dir) == 1 && strstr(cli_err, "all 2 problems are over 3 tokens"), "%s", cli_err);
    CHECK(cli("eval --model %s --task add:digits=1 --max-tokens 2048", base) == 1 &&
              strstr(cli_err, "max_position_embeddings 512"), "%s", cli_err);
    CHECK(cli("eval --model %s --task add:digits=1 --max-prompt 3", base) == 1 &&
              strstr(cli_err, "over 3 tokens"), "drawn: %s", cli_err);
    put_file("odd.jsonl", "{\"prompt\": \"4+5:\", \"answer\": \"9\"}\n{\"prompt\": \"4 5:\", "
                          "\"answer\": \"9\"}\n");
    CHECK(cli("eval --model %s --verifier exact --data %s/odd.jsonl", base, dir) == 1 &&
              strstr(cli_err, "odd.jsonl: line 2: '4 5:': no token"), "%s", cli_err);
}

/* --stop: the response ends at the text, which is not part of what is judged, but of what is
 * trained on; sampler and trainer still agree. */
static void test_stop(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    CHECK(cli("train --model %s --task add:digits=1 --steps 2 --prompts 4 --rollouts 4 --stop 2, "
              "--out %s/stop", base, dir) == 0 &&
              always_on_policy(tmp_path("stop/metrics.jsonl").s, 2), "%s", cli_err);
    char *text = read_file(tmp_path("stop/rollouts.jsonl").s, &n);
    int stopped = 0;
    for (char *line = text, *next; *line; line = next) {
        next = strchr(line, '\n') + 1;
        char *response = strstr(line, "\"response\": \"") + 13;
        int length = (int)strcspn(response, "\"");
        response[length] = 0;
        char *rest = response + length + 1, *flag = strstr(rest, "\"truncated\": ");
        bool whole = flag[13] == 'f';
        CHECK(!strstr(response, "2,"), "response %s", response);
        CHECK(!whole || field(rest, "length") == length + 1 || field(rest, "length") == length + 2,
              "'%s' is %g tokens", response, field(rest, "length"));
        stopped += whole && field(rest, "length") == length + 2;
    }
    free(text);
    CHECK(stopped > 0, "nothing stopped");
    CHECK(cli("eval --model %s --task add:digits=1 --split train --problems 4 --samples 4 "
              "--stop + --json", base) == 0 && field(cli_out, "completions/mean_length") <= 3, "%s",
          cli_out);
    CHECK(cli("sample --model %s --prompt 1 --stop=", base) == 2, "an empty --stop");
}

/* ---------------------------------------------------------------- rewards from a command */

/* What a test asks of a command, in a process of its own. */
typedef struct {
    const char *command;
    double timeout;
    int rounds;
} Asking;

static void exchange_to_die(void *argument)
{
    const Asking *x = argument;
    Reward r = reward_start(x->command, x->timeout);
    double reward[4];
    const char *reason[4];
    Buf lines = {0};
    for (int i = 0; i < 4; i++)
        reward_request("p", "r", 1, "a", &lines);
    for (int i = 0; i < x->rounds; i++) {
        struct pollfd unasked = {.fd = r.out, .events = POLLIN};
        if (i > 0)
            poll(&unasked, 1, 5000);
        reward_get(&r, &lines, 4, reward, reason);
    }
    buf_free(&lines);
    reward_stop(&r);
}

/* Runs f in a process of its own, as `dies` does, and then waits until every process that it left
 * behind has ended, at most 5 seconds: all of them hold the end of a pipe. False if one has not. */
static bool dies_out(void (*f)(void *), void *argument, char *err, size_t capacity, int *status)
{
    int leash[2];
    char byte;
    if (pipe(leash))
        die("no pipe: %s", strerror(errno));
    *status = dies(f, argument, err, capacity);
    close(leash[1]);
    struct pollfd p = {.fd = leash[0], .events = POLLIN};
    bool gone = poll(&p, 1, 5000) == 1 && read(leash[0], &byte, 1) == 0;
    close(leash[0]);
    return gone;
}

/* Every way in which a command can fail: one line, status 1, and nothing left running. */
static void test_reward_failures(void)
{
    static const struct {
        const char *command, *words;
        int rounds;
    } cases[] = {
        {"exit 3", "status 3, after 0 of 4 answers", 1},
        {"no_such_command_here", "status 127, after 0 of 4", 1},
        {"read x; echo 1; read x; echo 1; exit 0", "status 0, after 2 of 4", 1},
        {"read x; kill -9 $$", "status 137", 1},
        {"sleep 30", "no answer in 0.2 seconds", 1},
        {"while read x; do :; done; while :; do sleep 30; done", "no answer in 0.2 seconds", 1},
        {"read x; echo 1; sleep 30", "1 of 4 are here", 1},
        {"read x; for i in 1 2 3 4 5 6 7 8 9; do printf 1; sleep 0.3; done", "0 of 4 are here", 1},
        {"exec 0<&-; sleep 30", "no answer in 0.2", 1},
        {"exec 1>&-; sleep 30", "after 0 of 4", 1},
        {"read x; echo hello; sleep 30", "answer 1 of 4 is \"hello\"; expected", 1},
        {"read x; echo 1; echo; sleep 30", "answer 2 of 4 is \"\"", 1},
        {"read x; echo nan; sleep 30", "answer 1 of 4", 1},
        {"read x; echo 1e999; sleep 30", "answer 1 of 4", 1},
        {"read x; echo 1e101; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '1 2'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '{\"reward\": \"1\"}'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '{\"score\": 1}'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo '{\"reward\": .5}'; sleep 30", "answer 1 of 4", 1},
        {"read x; echo yes; sleep 30", "answer 1 of 4", 1},
        {"read x; printf '\\001\\377\\n'; sleep 30", "answer 1 of 4 is \"\\u0001", 1},
        {"read x; tr '\\0' 1 </dev/zero", "longer than 1048576 bytes", 1},
        {"read x; printf '1\n1\n1\n1\n1\n'; sleep 30", "more than one line", 1},
        {"while read x; do echo 1; echo 1; done", "wrote ", 2},
        {"for i in 1 2 3 4; do read x; echo 1; done; sleep 0.2; echo 5; sleep 30",
         "wrote a line unasked: \"5\"; expected ", 2},
        {"echo Loading; sleep 1; exit", " \"Loading\"; expected ", 1},
        {"for i in 1 2 3 4; do read x; echo 1; done", "status 0, after 0 of 4", 2},
    };
    char err[1024];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool silent = strstr(cases[i].words, "no answer"), slow = strstr(cases[i].words, "here");
        Asking x = {cases[i].command, silent ? 0.2 : slow ? 1 : 20, cases[i].rounds};
        int status;
        CHECK(dies_out(exchange_to_die, &x, err, sizeof err, &status), "%s: still runs", x.command);
        const char *line = strstr(err, "g2rl: --reward-cmd: ");
        CHECK(status == 1 && line && strstr(line, cases[i].words) &&
                  strchr(line, '\n') == line + strlen(line) - 1, "%s: status %d, %s",
              cases[i].command, status, err);
    }
}

/* However we end, the command ends: after a normal end, after a die elsewhere, and when killed; and
 * with it what it started. */
static void end_badly(void *argument)
{
    Reward r = reward_start("trap '' TERM INT; sleep 30 & echo 1; while :; do sleep 1; done", 5);
    while (!reward_read(&r) || !r.unread.n)
        usleep(1000);
    if (*(int *)argument == 0)
        reward_stop(&r);
    else if (*(int *)argument == 1)
        exit(1);
    else
        kill(getpid(), SIGKILL);
}

static void test_reward_end(void)
{
    char err[256];
    for (int how = 0; how < 3; how++) {
        int status;
        CHECK(dies_out(end_badly, &how, err, sizeof err, &status), "end %d: something still runs",
              how);
        CHECK(status == (how == 2 ? -1 : how), "end %d: status %d", how, status);
    }
    Reward r = reward_start("while read x; do :; done; exit 5", 1);
    CHECK(reward_stop(&r) == 5, "a command that ends with its input gives its status");
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "no zombie");
    CHECK(reward_stop(&r) == 0, "stopping twice");
}

/* Answers in the order of the requests; pipes that fill on both sides; what is asked, exactly. */
static void test_reward_exchange(void)
{
    enum { N = 300, BIG = 4000 };
    Reward r = reward_start("n=0; while read -r x; do n=$((n + 1)); printf "
                            "'{\"reason\": \"%01500d\", \"x\": [1], \"reward\": -%d.25}\\n' $n $n; "
                            "done", 20);
    Buf lines = {0}, big = {0};
    double reward[N];
    const char *reason[N];
    for (int i = 0; i < BIG; i++)
        buf_str(&big, "x");
    for (int i = 0; i < N; i++)
        reward_request(big.s, "r", 1, "", &lines);
    reward_get(&r, &lines, N, reward, reason);
    for (int i = 0; i < N; i++)
        CHECK(reward[i] == -(i + 1.25) && strlen(reason[i]) == REWARD_REASON_MAX,
              "answer %d: %g", i, reward[i]);
    lines.n = 0;
    reward_request("p", "r", 1, "", &lines);
    reward_get(&r, &lines, 1, reward, reason);
    CHECK(reward[0] == -(N + 1.25), "the next step goes on: %g", reward[0]);
    reward_stop(&r);
    char command[256];
    snprintf(command, sizeof command, "read -r x; printf '%%s' \"$x\" >%.99s; echo 1e-3",
             tmp_path("request").s);
    r = reward_start(command, 5);
    lines.n = 0;
    reward_request("a\n\"b\"", "\xE2\x80\xA8\\\x01", 5, "#### 1", &lines);
    reward_get(&r, &lines, 1, reward, reason);
    size_t n;
    char *text = read_file(tmp_path("request").s, &n);
    CHECK(!strcmp(text, "{\"prompt\": \"a\\n\\\"b\\\"\", "
                        "\"response\": \"\xE2\x80\xA8\\\\\\u0001\", \"answer\": \"#### 1\"}"),
          "asked: %s", text);
    CHECK(reward[0] == 1e-3 && !*reason[0], "a number, no reason: %g, %s", reward[0], reason[0]);
    reward_stop(&r);
    free(text);
    buf_free(&lines, &big);
}

/* The example that is shipped. */
static void test_reward_story(void)
{
    static const struct {
        const char *response, *reason;
        double reward;
    } cases[] = {{"The \"dog\" saw a cat.\nA dog!", "animals: dog cat", 2},
                 {"She went home\", \"answer\": \"dog", "animals: dog", 1},
                 {"She went home.", "animals: none", -1},
                 {"", "animals: none", -1},
                 {"dog cat bird frog", "animals: dog cat bird frog", 3}};
    Reward r = reward_start("data/reward_story.sh", 20);
    Buf lines = {0};
    double reward[5];
    const char *reason[5];
    for (int i = 0; i < 5; i++)
        reward_request("A bear, \"response\": \"mouse", cases[i].response,
                       strlen(cases[i].response), "fish", &lines);
    reward_get(&r, &lines, 5, reward, reason);
    for (int i = 0; i < 5; i++)
        CHECK(reward[i] == cases[i].reward && !strcmp(reason[i], cases[i].reason), "'%s': %g, %s",
              cases[i].response, reward[i], reason[i]);
    reward_stop(&r);
    buf_free(&lines);
}

/* Rewards that are any real number: dead groups, novelty's share, and Eq 12, 2. */
static void test_real_rewards(void)
{
    MethodOptions o = {.method = G2RL, .lambda = 1, .dead_groups = DEAD_ZERO};
    Engine e = engine_new(1, 1 << 20, 64);
    const float Phi[] = {1, 0, 1, 1, 0, 1, -1, 2};
    const double some[] = {0.5, 2, 0.25, 0.5}, equal[] = {0.5, 0.5, 0.5, 0.5};
    Group g = made_group(&e, 4, 2, Phi, some);
    double mean = 0, variance = 0, r[4];
    for (int i = 0; i < 4; i++) {
        g.shaped[i] = shape_reward(g.reward[i], g.nubar[i], &o);
        r[i] = fmin(3, some[i] * (1 + some[i] * g.nubar[i]));
        mean += r[i] / 4;
    }
    for (int i = 0; i < 4; i++)
        variance += (r[i] - mean) * (r[i] - mean) / 4;
    advantages(&g, &o);
    for (int i = 0; i < 4; i++)
        CHECK(fabs(g.advantage[i] - (r[i] - mean) / (sqrt(variance) + 1e-6)) < 1e-9,
              "A_%d is %g, not %g", i, g.advantage[i], (r[i] - mean) / (sqrt(variance) + 1e-6));
    CHECK(count_right(&g) == 4 && !is_dead(&g), "all above 0, but not equal: alive");
    double a = g.advantage[0], b = g.advantage[3];
    CHECK(fabs(novelty_part(&g) - (a - b) * (a - b) / 2) < 1e-9 && fabs(a - b) > 0.01,
          "novelty's part is what is left between the two equal rewards: %g", novelty_part(&g));
    g = made_group(&e, 4, 2, Phi, equal);
    CHECK(is_dead(&g), "equal rewards are dead, whatever they are");
    engine_free(&e);
}

/* --reward-cmd in train, eval and explain: the ledger keeps rewards and reasons; one seed gives one
 * result, whatever the threads. */
static void test_reward_cmd(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    Path script = put_file("length.sh", "while IFS= read -r x; do x=${x#*'\"response\": \"'}\n"
                                        "x=${x%%'\", \"answer\"'*}\n"
                                        "printf '{\"reward\": 1.%d, \"reason\": \"is %s\"}\\n' "
                                        "${#x} \"$x\"\ndone\n");
    put_file("prompts.jsonl",
             "{\"prompt\": \"4+5:\"}\n{\"prompt\": \"45\"}\n{\"prompt\": \"1+2:\"}\n");
    char options[256];
    snprintf(options, sizeof options, "--reward-cmd sh %.100s\n--data %.100s/prompts.jsonl\n",
             script.s, dir);
    put_file("cmd", options);
    const char *common = "--steps 2 --prompts 2 --rollouts 4 --max-tokens 9";
    CHECK(cli("train --model %s %s --out %s/cmd1 --threads 1 @%s/cmd", base, common, dir, dir) == 0,
          "%s", cli_err);
    CHECK(cli("train --model %s %s --out %s/cmd3 --threads 3 @%s/cmd", base, common, dir, dir) == 0,
          "%s", cli_err);
    CHECK(same_lines(tmp_path("cmd1/metrics.jsonl").s, tmp_path("cmd3/metrics.jsonl").s) &&
              same_lines(tmp_path("cmd1/rollouts.jsonl").s, tmp_path("cmd3/rollouts.jsonl").s),
          "threads change the rewards");
    size_t n;
    int rows = 0;
    char *text = read_file(tmp_path("cmd1/rollouts.jsonl").s, &n);
    for (char *line = text, *next; *line; line = next, rows++) {
        char response[64], reason[80], number[32];
        next = strchr(line, '\n') + 1;
        snprintf(response, sizeof response, "%.60s", strstr(line, "\"response\": \"") + 13);
        response[strcspn(response, "\"")] = 0;
        snprintf(reason, sizeof reason, "\"reason\": \"is %s\"", response);
        snprintf(number, sizeof number, "1.%zu", strlen(response));
        CHECK(field(line, "reward") == strtod(number, NULL) && strstr(line, reason), "%.200s",
              line);
    }
    free(text);
    CHECK(rows == 16, "%d rows", rows);
    CHECK(cli("eval --model %s --samples 4 --max-tokens 9 --json @%s/cmd", base, dir) == 0 &&
              field(cli_out, "pass@1") == 1 && field(cli_out, "problems") == 3, "%s%s", cli_err,
          cli_out);
    snprintf(options, sizeof options, "--reward-cmd sh %.100s\n", script.s);
    put_file("cmd", options);
    CHECK(cli("explain --model %s --prompt 45 --rollouts 4 @%s/cmd", base, dir) == 0 &&
              strstr(cli_out, " (is "), "%s%s", cli_err, cli_out);
    CHECK(cli("explain --model %s --prompt 45 --rollouts 4", base) == 2 &&
              strstr(cli_err, "gold answer"), "%s", cli_err);
    CHECK(cli("train --model %s --verifier exact --out %s/x @%s/cmd", base, dir, dir) == 2 &&
              strstr(cli_err, "--verifier"), "%s", cli_err);
    CHECK(cli("train --model %s %s --out %s/x --reward-cmd true", base, common, dir) == 1 &&
              strstr(cli_err, "after 0 of 8 answers"), "%s", cli_err);
    put_file("ten.sh", "while read -r x; do echo 10; done\n");
    snprintf(options, sizeof options, "--reward-cmd sh %.100s/ten.sh\n", dir);
    put_file("cmd", options);
    CHECK(cli("train --model %s %s --out %s/ten @%s/cmd", base, common, dir, dir) == 0 &&
              strstr(cli_err, "a reward of 10") && strstr(cli_err, "[-3, 3]"), "%s", cli_err);
    for (int k = 0; k < 4; k++) { /* 0 and 1; the same under grpo; -1 and 1; 1 and 2 */
        put_file("ab.sh", k < 2 ? "while read -r x; do echo 0; read -r x; echo 1; done\n" :
                 k == 2 ? "while read -r x; do echo -1; read -r x; echo 1; done\n"
                        : "while read -r x; do echo 1; read -r x; echo 2; done\n");
        snprintf(options, sizeof options, "--reward-cmd sh %.100s/ab.sh\n", dir);
        put_file("cmd", options);
        CHECK(cli("train --model %s %s --force --out %s/ab @%s/cmd --method %s", base, common, dir,
                  dir, k == 1 ? "grpo" : "g2rl") == 0, "%s", cli_err);
        CHECK((strstr(cli_err, "rewards of 0 stay 0") != NULL) == (k == 0), "%d: %s", k, cli_err);
    }
}

/* A file of problems for explain and for --eval-every. */
static void test_problem_files(void)
{
    const char *base = base_model(), *dir = tmp_dir();
    size_t n;
    put_file("math.jsonl", "{\"question\": \"4+5\", \"answer\": \"is\\n#### 9\"}\n"
                           "{\"question\": \"1+2\", \"answer\": 3}\n");
    CHECK(cli("explain --model %s --data %s/math.jsonl --rollouts 4", base, dir) == 0 &&
              strstr(cli_out, "prompt 4+5\n"), "%s%s", cli_err, cli_out);
    CHECK(cli("train --model %s --data %s/math.jsonl --steps 1 --prompts 2 --rollouts 2 "
              "--eval-every 1 --samples 2 --out %s/side", base, dir, dir) == 2 &&
              strstr(cli_err, "--eval-data"), "%s", cli_err);
    CHECK(cli("train --model %s --data %s/math.jsonl --steps 1 --prompts 2 --rollouts 2 "
              "--eval-every 1 --samples 2 --eval-data %s/math.jsonl --force --out %s/side", base,
              dir, dir, dir) == 0, "%s", cli_err);
    char *text = read_file(tmp_path("side/eval.jsonl").s, &n);
    CHECK(field(text, "problems") == 2, "%s", text);
    free(text);
    text = read_file(tmp_path("side/run.json").s, &n);
    CHECK(strstr(text, "\"verifier\": \"math\""), "%s", text);
    free(text);
    text = read_file(tmp_path("side/rollouts.jsonl").s, &n);
    CHECK(strstr(text, "\"answer\": \"9\"") && strstr(text, "\"answer\": \"3\""), "bare answers");
    free(text);
}

#endif
