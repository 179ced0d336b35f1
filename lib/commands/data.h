/* data.h: the command `data`: writes problems of a task, or checks a file of problems. */
#ifndef DATA_H
#define DATA_H

static void cmd_data(Session *s)
{
    Problems p = session_problems(s, s->o.data, (Split)s->o.split);
    Buf prompt = {0}, answer = {0}, line = {0};
    if (s->o.data)
        printf("%s: %d problems\n", s->o.data, p.n);
    for (int i = 0; !s->o.data && i < s->o.problems; i++) {
        prompt.n = answer.n = 0;
        task_problem(&p.task, p.seed, p.split, (uint32_t)i, &prompt, &answer);
        buf_str(&line, "{\"prompt\": ");
        json_put_string(&line, prompt.s, prompt.n);
        put_text(&line, "answer", answer.s, answer.n);
        printf("%s}\n", line.s);
        demand_output(false);
        line.n = 0;
    }
    buf_free(&prompt, &answer, &line);
    problems_free(&p);
}

#endif
