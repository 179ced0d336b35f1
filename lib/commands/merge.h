/* merge.h: the command `merge`: W = W0 + s B A, written as a model that needs no adapter. */
#ifndef MERGE_H
#define MERGE_H

static Path merge_unfinished;

/* An error leaves nothing behind. */
static void merge_undo(void) { remove_dir(merge_unfinished.s); }

static void cmd_merge(Session *s)
{
    const Options *o = &s->o;
    if (!o->adapter || !o->out)
        usage("merge: expected --model DIR --adapter DIR --out DIR");
    if (is_file(o->out) || is_dir(o->out))
        die("%s: is there already; expected the name of a new directory", o->out);
    session_load(s, o->model);
    session_prepare_saving(s, base_dir(o->model).s);
    Path temporary = merge_unfinished = path_printf("%s.tmp-%ld", o->out, (long)getpid());
    make_dirs(temporary.s);
    at_error = merge_undo;
    size_t rounded = model_save(&s->model, temporary.s);
    for (int i = 0; i < s->n_carried; i++)
        write_file(path_join(temporary.s, s->carried[i].name).s, s->carried[i].text,
                   s->carried[i].n);
    if (rename(temporary.s, o->out))
        die("%s: cannot be written: %s", o->out, strerror(errno));
    at_error = NULL;
    if (rounded)
        warn("%s: %zu of %zu weights are rounded to BF16 or F16; --dtype f32 keeps every bit",
             o->out, rounded, s->model.n_params);
}

#endif
