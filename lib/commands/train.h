/* train.h: the command `train`: reinforcement learning. The step itself is train_step of g2rl.c;
 * here is what it runs on, and what is written down of it. */
#ifndef TRAIN_H
#define TRAIN_H

/* Refuses options that would do nothing, or nothing sensible, with the others. */
static void check_method(const Options *o, bool train)
{
    if (o->rl.method != G2RL && (o->rl.novelty || o->rl.shaping || o->rl.lambda != 0.5))
        usage("--method %s: knows no --lambda, --shaping or --novelty; these shape the rewards of "
              "--method g2rl", METHODS[o->rl.method]);
    if (o->rl.method == EVOL && o->reward_cmd)
        usage("--method evol: knows right and wrong answers only; expected a verifier, not "
              "--reward-cmd");
    if (o->rl.method == ENTROPY && train && o->rl.entropy_coef == 0)
        usage("--method entropy: is GRPO without its bonus; expected --entropy-coef above 0");
    if (o->rl.kl && o->rl.kl_coef == 0)
        usage("--kl %s: expected --kl-coef above 0", o->rl.kl == KL_K2 ? "k2" : "exact");
    if (train && o->rl.method == G2RL && o->rollouts == 2)
        warn("--rollouts 2: each response has one other, so both nu of a group are equal, and g2rl "
             "is grpo; expected 3 or more");
    bool once = o->epochs == 1 && (!o->mini_batch || o->mini_batch >= o->prompts);
    if (train && once && (o->rl.clip_low != 0.2 || o->rl.clip_high != 0.2))
        warn("--clip-low, --clip-high: one exactly on-policy update a step has a ratio of 1, which "
             "no clip holds; see --mini-batch and --epochs");
}

_Static_assert(2 * PHASES <= RUN_TOTALS, "room for the seconds and the work of each phase");

/* The rows of the run's files for the step that was made. */
static void write_step(Trainer *t, double lr, double seconds)
{
    Session *s = t->s;
    const Options *o = &s->o;
    GroupSums groups = {0};
    Buf b = {0};
    double flops[PHASES] = {0}, ledger = 0; /* ledger: bytes of the step's lines */
    warn_clipped(s, t->groups, &t->warned);
    for (int i = 0; i < o->prompts; i++) {
        const Group *g = &t->groups[i];
        count_work(s, g, is_restored(t->extent, i), flops);
        group_sums(&groups, g);
        for (int k = 0; k < g->m; k++) {
            put_rollout(&b, g, k, t->run.step, &s->tokenizer, !o->ledger);
            ledger += (double)b.n;
            run_line(t->run.ledger, &b, o->out, "rollouts.jsonl");
        }
    }
    put_metrics(&b, t->run.step, &groups, &t->sums, keeps_reference(o));
    put(&b, "loss", t->sums.loss);
    put(&b, "grad_norm", t->norm);
    put(&b, "lr", lr);
    for (int i = 0; i < PHASES; i++) {
        char name[32];
        snprintf(name, sizeof name, "time/%s", PHASE_NAMES[i]);
        put(&b, name, s->engine.seconds[i]);
        t->run.totals[i] += s->engine.seconds[i];
        t->run.totals[PHASES + i] += flops[i];
    }
    put(&b, "tokens_per_s", groups.tokens / seconds);
    put_hash(&b, &s->model);
    run_line(t->run.metrics, &b, o->out, "metrics.jsonl");
    snprintf(t->note, sizeof t->note, "pass@1 %.3f  entropy %.3f  cosine %+.3f",
             ratio(groups.right, groups.responses), ratio(t->sums.entropy, t->sums.tokens),
             ratio(groups.cosine, groups.pairs));
    buf_free(&b);
    if (t->run.metrics && t->run.step == 1 && !o->ledger && ledger * o->steps > 1e9)
        warn("%s/rollouts.jsonl: will have about %.1f GB; --ledger short leaves out the m x m "
             "numbers of each group's S and w", o->out, 1e-9 * ledger * o->steps);
    if (t->run.metrics)
        demand_signal(s, t->run.step, &groups, &t->signal);
}

/* The next step of training, written down. */
static void train_and_record(Trainer *t, Progress *report)
{
    Engine *e = &t->s->engine;
    double seconds = 0, lr = learning_rate(&t->s->o, t->run.step);
    e->clock = now_seconds();
    if (train_step(t)) {
        for (int i = 0; i < PHASES; i++)
            seconds += e->seconds[i];
        write_step(t, lr, seconds);
        progress(report, t->run.step, t->note);
    }
    memset(e->seconds, 0, sizeof e->seconds);
    e->arena.used = t->mark;
    t->groups = NULL;
}

/* Where the time went, and the speed of each phase as a share of this machine's peak. */
static void print_profile(const Trainer *t)
{
    int threads = t->s->engine.threads;
    const double *seconds = t->run.totals, *flops = t->run.totals + PHASES;
    double total = 0, peak = measure_peak(threads);
    for (int i = 0; i < PHASES; i++)
        total += seconds[i];
    fprintf(stderr, "time %.1f s on %d thread%s, which do at most %.0f GFLOP/s:\n", total, threads,
            threads > 1 ? "s" : "", peak);
    for (int i = 0; i < PHASES; i++) {
        double rate = 1e-9 * ratio(flops[i], seconds[i]);
        if (seconds[i] < 0.0005 * total)
            continue;
        fprintf(stderr, "  %-10s %8.1f s %5.1f %%", PHASE_NAMES[i], seconds[i],
                100 * ratio(seconds[i], total));
        if (rate > 0)
            fprintf(stderr, " %8.1f GFLOP/s, %4.1f %% of that", rate, 100 * rate / peak);
        fputc('\n', stderr);
    }
}

/* What a step's groups, their rollouts and passes, and evaluation aside take. */
static Needs train_needs(const Trainer *t)
{
    const Session *s = t->s;
    const Model *m = &s->model;
    Extent x = t->extent, aside = eval_extent(&t->held_out, s->o.samples, s->o.max_tokens);
    int targets = x.at_once * x.m * x.max_tokens;
    Needs n = {groups_bytes(m, x), sampling_bytes(m, x), groups_pass_bytes(m, x),
               pieces_bytes(m, x.at_once * x.max_prompt + targets, targets), saved_bytes(m, x),
               keeps_reference(&s->o) && !m->lora};
    if (s->o.eval_every) {
        n.shared += groups_bytes(m, aside);
        n.sampling += worker_bytes(m, aside);
    }
    return n;
}

/* Memory for these. Sampling saves its activations where that leaves half of the memory free; it
 * saves time, and changes no bit. */
static Engine train_engine(Trainer *t)
{
    const Session *s = t->s;
    t->extent.saved = s->o.recompute ? SAVE_NOTHING : SAVE_ALL;
    if (run_memory(s, train_needs(t)).all > run_available(&s->model) / 2)
        t->extent.saved = SAVE_NOTHING;
    return run_engine(s, train_needs(t));
}

/* The problems to train on, and those for --eval-every: read, their answers tried, and all that
 * are too long left out. */
static void train_problems(Trainer *t)
{
    Session *s = t->s;
    t->problems = session_problems(s, s->o.data, SPLIT_TRAIN);
    t->problems.shuffled = true;
    if (s->o.data)
        problems_check_gold(&t->problems, true);
    if (!s->o.reward_cmd)
        s->o.verifier = (int)t->problems.judge.verifier; /* for run.json */
    bool others = s->o.data && !task_key(&s->task, t->problems.problem[0].prompt);
    int limit = prompt_limit(s, &s->model.config);
    problems_fit(&t->problems, &s->tokenizer, limit);
    if (others)
        s->o.task = s->was.o.task = NULL; /* in run.json: problems of one's own */
    if (!s->o.eval_every)
        return;
    if (others && !s->o.eval_data)
        usage("--eval-every: with --data, expected --eval-data FILE too");
    t->held_out = session_evaluated(s, s->o.eval_data);
    problems_fit(&t->held_out, &s->tokenizer, limit);
}

/* Dies unless `m`, of --model, is the model that the run began with. */
static void demand_start(const Model *m, const char *dir, uint64_t start)
{
    unsigned long long is = weights_hash(m), was = start;
    if (is != was)
        die("%s: is not the model that the run began with: its weights_hash is %016llx, and was "
            "%016llx; name that one by --model", dir, is, was);
}

/* The reference: the model that training began with. */
static void train_reference(Trainer *t, int positions)
{
    Session *s = t->s;
    Path dir = model_dir(s->o.model);
    if (!is_dir(dir.s))
        die("%s: is not there: the model that the run began with, its reference; name where it is "
            "now by --model", dir.s);
    t->reference = model_load(dir.s);
    t->reference.n_vocab = s->model.n_vocab;
    rope_reserve(&t->reference, positions);
    if (!s->o.recompute)
        model_pack(&t->reference, s->engine.threads);
    demand_start(&t->reference, dir.s, t->run.start);
}

/* Everything that a run needs before its next step, wherever it stands. Writes nothing. */
static Trainer train_open(Session *s, Run run)
{
    const Options *o = &s->o;
    Trainer t = {.s = s, .run = run};
    session_learner(s, *run.from.s ? run.from.s : NULL);
    session_stops(s);
    s->model.n_vocab = s->tokenizer.n_vocab;
    train_problems(&t);
    int longest = t.problems.longest;
    t.extent = (Extent){o->prompts, o->rollouts, longest, o->max_tokens,
                        good_micro_batch(o->micro_batch, o->prompts,
                                         longest + o->rollouts / 2 * o->max_tokens),
                        o->recompute ? KEEP_INPUTS : KEEP_ALL, keeps_reference(o), SAVE_NOTHING};
    session_prepare_saving(s, run.from.s);
    s->engine = train_engine(&t);
    model_trainable(&s->model, o->recompute);
    run_load(&t.run);
    rope_reserve(&s->model, longest + o->max_tokens);
    t.signal.rewarded = run.saved > 0; /* of steps before a --resume nothing is known */
    t.signal.learned = run.saved >= 0 && weights_hash(&s->model) != t.run.start;
    if (keeps_reference(o) && !s->model.lora)
        train_reference(&t, longest + o->max_tokens);
    if (!o->recompute)
        model_pack(&s->model, s->engine.threads);
    t.learner = learner_new(s, t.extent.at_once);
    return t;
}

static void train_close(Trainer *t)
{
    free(t->learner.pass);
    model_free(&t->reference);
    problems_free(&t->problems);
    problems_free(&t->held_out);
}

/* The evaluation of this step, if there is one. */
static void train_eval(Trainer *t)
{
    Run *run = &t->run;
    if (run_evaluates(run) && eval_on_the_side(t->s, &t->held_out, run->evals, run->step))
        run->evaluated = run->step;
}

static void cmd_train(Session *s)
{
    const Options *o = &s->o;
    check_method(o, true);
    Trainer t = train_open(s, run_find(s, TRAIN));
    Run *run = &t.run;
    if (run->saved < 0 && o->steps) {
        next_groups(&t);
        preflight(s, &t.problems.judge, t.extent, t.groups);
    }
    run_begin(run);
    char phase[32];
    snprintf(phase, sizeof phase, "train %s", METHODS[o->rl.method]);
    Progress report = progress_new(phase, o->steps);
    report.first = run->step;
    train_eval(&t);
    while (run_goes_on(run)) {
        train_and_record(&t, &report);
        run_step_done(run);
        train_eval(&t);
    }
    run_finish(run);
    if (!s->status && run->step > report.first)
        print_profile(&t);
    train_close(&t);
}

#endif
