/* safetensors.h: the file format of weights, as Hugging Face writes it. Writes F32, BF16, F16.
 *
 *   8 bytes   length n of the header, little-endian
 *   n bytes   JSON: {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
 *   the rest  data; offsets count from its first byte
 *
 *   st_open_file, st_open_dir      one file; a model directory: one file, or shards and an index
 *   st_find, st_need               a tensor or NULL; a tensor of this shape, or the end
 *   st_read_part, st_release       its values as floats (F16 and BF16 exactly); frees their memory
 *   st_note                        a text of the file's __metadata__, or NULL
 *   st_try, st_close
 *   st_round                       a value rounded to F16 or BF16
 *   st_write                       a whole file or none, with notes for __metadata__
 *
 * A file is mapped, and nothing in it is trusted: after st_open_* every tensor has a known dtype, a
 * size that follows from its shape, and bytes inside the file that it shares with no other. Any
 * error ends the program with one line that names file and tensor, also where another process
 * shortens the file. Compare the shape (st_need) before reading. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "../base/json.h" /* defines: Json and the json_ functions; util.h: Buf, AtomicFile, die */

#include <signal.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors.h copies little-endian numbers as they are"
#endif

enum { ST_MAX_RANK = 8, ST_MAX_HEADER = 100000000 /* the format's own limit */ };

typedef enum {
    ST_F32, ST_F16, ST_BF16, ST_F64, ST_I8, ST_I16, ST_I32, ST_I64, ST_U8, ST_U16, ST_U32, ST_U64,
    ST_BOOL, ST_F8_E4M3, ST_F8_E5M2, ST_F8_E8M0, ST_C64, ST_DTYPES
} StDtype;

static const struct {
    const char *name;
    int size;
} st_dtypes[ST_DTYPES] = {
    [ST_F32] = {"F32", 4}, [ST_F16] = {"F16", 2}, [ST_BF16] = {"BF16", 2}, [ST_F64] = {"F64", 8},
    [ST_I8] = {"I8", 1}, [ST_I16] = {"I16", 2}, [ST_I32] = {"I32", 4}, [ST_I64] = {"I64", 8},
    [ST_U8] = {"U8", 1}, [ST_U16] = {"U16", 2}, [ST_U32] = {"U32", 4}, [ST_U64] = {"U64", 8},
    [ST_BOOL] = {"BOOL", 1}, [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_F8_E5M2] = {"F8_E5M2", 1},
    [ST_F8_E8M0] = {"F8_E8M0", 1}, [ST_C64] = {"C64", 8},
};

typedef struct {
    char *name;
    int dtype; /* StDtype */
    int rank;
    int64_t shape[ST_MAX_RANK];
    const unsigned char *data; /* may be unaligned */
    size_t bytes;
    const char *path; /* of the file it is in */
} StTensor;

typedef struct {
    char *path;
    unsigned char *bytes; /* mapped; NULL if the file is empty */
    size_t size;
    int first, n; /* its tensors, while the files are being opened */
} StFile;

typedef struct {
    char *key, *text;
} StNote;

typedef struct {
    char *path;        /* the one file, or the index */
    StTensor *tensors; /* by name */
    int n;
    StFile *files;
    int n_files;
    StNote *notes; /* of __metadata__ */
    int n_notes;
} SafeTensors;

typedef struct {
    const char *name;
    int rank;
    int64_t shape[ST_MAX_RANK];
    const float *data;
    int dtype; /* in the file: ST_F32, ST_BF16 or ST_F16 */
} StOut;

/* ---------------------------------------------------------------- messages */

typedef struct {
    char s[256];
} StText;

/* A name from a file for a message: one line of at most 200 bytes. */
static StText st_label(const char *name)
{
    StText t = {{0}};
    for (size_t i = 0, n = strlen(name); i < n;) {
        uint32_t code;
        int length = utf8_decode(name + i, n - i, &code);
        if (length < 0 || i + (size_t)length > 200)
            break;
        memcpy(t.s + i, code < 0x20 || (code >= 0x7F && code < 0xA0) ? "??" : name + i,
               (size_t)length);
        i += length;
    }
    return t;
}

static StText st_shape_text(int rank, const int64_t *shape)
{
    StText t = {"["};
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n += (size_t)snprintf(t.s + n, sizeof t.s - n, i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(t.s + n, sizeof t.s - n, "]");
    return t;
}

/* ---------------------------------------------------------------- the header */

/* A JSON text and the keys that lead to its cursor, for messages. */
typedef struct {
    Json json;
    Buf outer, inner;
} StCursor;

/* "outer: inner: what" */
static void st_blame(const StCursor *c, const char *what, Buf *error)
{
    if (c->outer.n)
        buf_printf(error, "%s: ", st_label(c->outer.s).s);
    if (c->inner.n)
        buf_printf(error, "%s: ", st_label(c->inner.s).s);
    buf_str(error, what);
}

/* [1, 2, 3]: at most max integers, none negative. Returns how many. */
static int st_integers(Json *j, int64_t *out, int max)
{
    int n = 0;
    for (json_array(j); json_item(j); n++) {
        if (n == max)
            json_fail(j, "more numbers than there can be");
        else if (json_int(j, &out[n]) && out[n] < 0)
            json_fail(j, "a negative number");
    }
    return n;
}

/* One tensor's entry, unchecked. Unknown fields are skipped, as the format's own reader does. */
static bool st_entry(StCursor *c, StTensor *t, int64_t offsets[2])
{
    enum { DTYPE, SHAPE, OFFSETS, FIELDS };
    static const char *const fields[FIELDS] = {"dtype", "shape", "data_offsets"};
    Json *j = &c->json;
    Buf text = {0};
    bool seen[FIELDS] = {0};
    for (json_object(j); json_key(j, &c->inner);) {
        int f = choice_index("dtype|shape|data_offsets", c->inner.s, c->inner.n);
        if (f >= 0 && seen[f])
            json_fail(j, "given twice");
        if (f == DTYPE && json_string(j, &text)) {
            while (t->dtype < ST_DTYPES && strcmp(text.s, st_dtypes[t->dtype].name))
                t->dtype++;
            if (t->dtype == ST_DTYPES)
                json_fail(j, "unknown; expected F32, BF16, F16 or another of the format's types");
        } else if (f == SHAPE) {
            t->rank = st_integers(j, t->shape, ST_MAX_RANK);
        } else if (f == OFFSETS && st_integers(j, offsets, 2) != 2) {
            json_fail(j, "expected two numbers, [begin, end]");
        } else if (f < 0)
            json_skip(j);
        if (f >= 0)
            seen[f] = true;
    }
    for (int f = 0; f < FIELDS && !j->error; f++) {
        c->inner.n = 0;
        if (!seen[f] && !json_fail(j, "missing"))
            buf_str(&c->inner, fields[f]);
    }
    buf_free(&text);
    return !j->error;
}

/* The bytes of dtype and shape, or -1 beyond 63 bits. */
static int64_t st_bytes_needed(const StTensor *t)
{
    int64_t bytes = st_dtypes[t->dtype].size;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] && bytes > INT64_MAX / t->shape[i])
            return -1;
        bytes *= t->shape[i];
    }
    return bytes;
}

/* Sets the tensor's data, if the offsets are right. */
static bool st_place(StTensor *t, const int64_t offsets[2], const unsigned char *data,
                     size_t size, Buf *why)
{
    int64_t begin = offsets[0], end = offsets[1], need = st_bytes_needed(t);
    if (begin > end || (uint64_t)end > size)
        buf_printf(why, "data_offsets [%lld, %lld]; expected begin <= end <= %zu",
                   (long long)begin, (long long)end, size);
    else if (need < 0)
        buf_printf(why, "shape %s is too large", st_shape_text(t->rank, t->shape).s);
    else if (need != end - begin)
        buf_printf(why, "data_offsets span %lld bytes; expected %lld for %s of shape %s",
                   (long long)(end - begin), (long long)need, st_dtypes[t->dtype].name,
                   st_shape_text(t->rank, t->shape).s);
    if (why->n)
        return false;
    t->data = data + begin;
    t->bytes = end - begin;
    return true;
}

static int st_by_name(const void *a, const void *b)
{
    return strcmp(((const StTensor *)a)->name, ((const StTensor *)b)->name);
}

static int st_by_place(const void *a, const void *b)
{
    const unsigned char *x = ((const StTensor *)a)->data, *y = ((const StTensor *)b)->data;
    return (x > y) - (x < y);
}

/* Sorts by name. No two tensors may share a byte or a name. */
static bool st_sort(StTensor *t, int n, Buf *error)
{
    const StTensor *before = NULL;
    qsort(t, n, sizeof *t, st_by_place);
    for (int i = 0; i < n && !error->n; i++) {
        if (!t[i].bytes) /* may lie anywhere */
            continue;
        if (before && t[i].data < before->data + before->bytes)
            buf_printf(error, "header: tensor %s and tensor %s share bytes; expected none to",
                       st_label(before->name).s, st_label(t[i].name).s);
        before = &t[i];
    }
    qsort(t, n, sizeof *t, st_by_name);
    for (int i = 1; i < n && !error->n; i++)
        if (!strcmp(t[i - 1].name, t[i].name))
            buf_printf(error, "header: tensor %s is there twice; expected once",
                       st_label(t[i].name).s);
    return !error->n;
}

/* Appends the entries of a header to st->tensors, the texts of __metadata__ to st->notes. */
static bool st_entries(SafeTensors *st, StCursor *c, const char *path, const unsigned char *data,
                       size_t size, Buf *why)
{
    Json *j = &c->json;
    Buf text = {0};
    for (json_object(j); json_key(j, &c->outer) && !why->n; c->outer.n = 0) {
        if (!strcmp(c->outer.s, "__metadata__")) {
            bool more = !json_missing(j) && json_object(j);
            for (; more && json_key(j, &c->inner) && json_string(j, &text); c->inner.n = 0)
                APPEND(st->notes, st->n_notes, (StNote){xstrdup(c->inner.s), xstrdup(text.s)});
        } else {
            int64_t offsets[2] = {0};
            APPEND(st->tensors, st->n, (StTensor){.name = xstrdup(c->outer.s), .path = path});
            StTensor *t = &st->tensors[st->n - 1];
            if (st_entry(c, t, offsets))
                st_place(t, offsets, data, size, why);
        }
        if (j->error || why->n)
            break;
    }
    buf_free(&text);
    return !why->n && json_end(j);
}

/* Adds the tensors of one file in memory. Returns false with the reason in `error`; never exits. */
static bool st_parse(SafeTensors *st, const char *path, const unsigned char *bytes, size_t size,
                     Buf *error)
{
    uint64_t length = 0;
    size_t most = size - 8 < ST_MAX_HEADER ? size - 8 : ST_MAX_HEADER;
    const char *what = foreign_format((const char *)bytes, size);
    if (size >= 8)
        memcpy(&length, bytes, 8);
    if (what && (size <= 8 || bytes[8] != '{'))
        buf_printf(error, "is %s; expected safetensors", what);
    else if (size < 8)
        buf_printf(error, "%zu bytes; expected a header length of 8 bytes", size);
    else if (!length || length > most)
        buf_printf(error, "header of %llu bytes; expected 1 to %zu", (unsigned long long)length,
                   most);
    else if (bytes[8] != '{')
        buf_str(error, "header: expected a JSON object that begins with its first byte");
    if (error->n)
        return false;
    StCursor c = {.json = json_open((const char *)bytes + 8, length)};
    Buf why = {0};
    int first = st->n;
    if (!st_entries(st, &c, path, bytes + 8 + length, size - 8 - length, &why)) {
        buf_str(error, "header: ");
        st_blame(&c, why.n ? why.s : c.json.error, error);
    }
    buf_free(&why, &c.outer, &c.inner);
    return !error->n && (st->n == first || st_sort(st->tensors + first, st->n - first, error));
}

/* ---------------------------------------------------------------- opening and closing */

/* Handles SIGBUS: BUS_ADRERR means that a mapped file has become shorter. Any other SIGBUS occurs
 * again and ends the program as usual. */
static void st_gone(int number, siginfo_t *info, void *context)
{
    static const char line[] = "g2rl: a file of weights became shorter while it was read\n";
    (void)context;
    if (info->si_code == BUS_ADRERR && write(2, line, sizeof line - 1) > 0)
        _exit(1);
    signal(number, SIG_DFL);
}

/* Maps a file; false with the reason in `error` where that cannot be done. */
static bool st_try_map(const char *path, StFile *f, Buf *error)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK); /* a pipe by that name would make us wait */
    struct sigaction gone = {.sa_sigaction = st_gone, .sa_flags = SA_SIGINFO};
    struct stat info = {0};
    sigaction(SIGBUS, &gone, NULL);
    void *map = NULL;
    if (fd < 0 || fstat(fd, &info))
        buf_printf(error, "cannot be opened: %s", strerror(errno));
    else if (!S_ISREG(info.st_mode))
        buf_str(error, "is not a regular file");
    else if (info.st_size) {
        map = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            buf_printf(error, "cannot be mapped: %s", strerror(errno));
        else
            madvise(map, info.st_size, MADV_SEQUENTIAL); /* read ahead */
    }
    if (fd >= 0)
        close(fd);
    if (error->n)
        return false;
    *f = (StFile){.path = xstrdup(path), .bytes = map, .size = (size_t)info.st_size};
    return true;
}

static StFile st_map(const char *path)
{
    Buf error = {0};
    StFile f = {0};
    if (!st_try_map(path, &f, &error))
        die("%s: %s", path, error.s);
    return f;
}

static void st_unmap(StFile *f)
{
    if (f->bytes)
        munmap(f->bytes, f->size);
    free(f->path);
}

/* Warns of bytes that are neither header nor tensor, which the format forbids. */
static void st_warn_unowned(const SafeTensors *st, const StFile *f)
{
    uint64_t length, owned = 8;
    memcpy(&length, f->bytes, 8);
    for (int i = f->first; i < f->first + f->n; i++)
        owned += st->tensors[i].bytes;
    if (owned + length < f->size)
        warn("%s: %llu bytes belong to no tensor; ignored", f->path,
             (unsigned long long)(f->size - owned - length));
}

/* Adds a file; NULL with the reason in `error` where it cannot be read or is not whole. */
static StFile *st_try(SafeTensors *st, const char *path, Buf *error)
{
    StFile f = {0};
    if (!st_try_map(path, &f, error))
        return NULL;
    f.first = st->n;
    APPEND(st->files, st->n_files, f);
    if (!st_parse(st, f.path, f.bytes, f.size, error))
        return NULL;
    st->files[st->n_files - 1].n = st->n - f.first;
    return &st->files[st->n_files - 1];
}

static StFile *st_add_file(SafeTensors *st, const char *path)
{
    Buf error = {0};
    StFile *f = st_try(st, path, &error);
    if (!f)
        die("%s: %s", path, error.s);
    st_warn_unowned(st, f);
    return f;
}

static SafeTensors st_open_file(const char *path)
{
    SafeTensors st = {.path = xstrdup(path)};
    st_add_file(&st, path);
    return st;
}

static int st_is_name(const void *name, const void *tensor)
{
    return strcmp(name, ((const StTensor *)tensor)->name);
}

/* By name among the sorted tensors [first, first + n). */
static const StTensor *st_search(const SafeTensors *st, int first, int n, const char *name)
{
    return n ? bsearch(name, st->tensors + first, n, sizeof(StTensor), st_is_name) : NULL;
}

/* One line of the index. A shard is opened when it is first named. */
static void st_add_mapping(SafeTensors *st, const char *dir, const char *tensor, const char *shard)
{
    StText name = st_label(tensor), file = st_label(shard);
    if (!*shard || *shard == '.' || strchr(shard, '/') || strlen(shard) >= 256)
        die("%s: weight_map: %s: shard '%s'; expected the plain name of a file", st->path, name.s,
            file.s);
    Path path = path_join(dir, shard);
    StFile *f = NULL;
    for (int i = 0; i < st->n_files && !f; i++)
        f = strcmp(st->files[i].path, path.s) ? NULL : &st->files[i];
    if (!f && !is_file(path.s))
        die("%s: weight_map: %s: there is no file '%s'", st->path, name.s, file.s);
    if (!f)
        f = st_add_file(st, path.s);
    if (!st_search(st, f->first, f->n, tensor))
        die("%s: weight_map: %s is not in '%s'", st->path, name.s, file.s);
}

/* {"metadata": ..., "weight_map": {"TENSOR": "SHARD", ...}} */
static bool st_index_entries(SafeTensors *st, StCursor *c, const char *dir)
{
    Json *j = &c->json;
    Buf shard = {0};
    for (json_object(j); json_key(j, &c->outer); c->outer.n = 0) {
        if (strcmp(c->outer.s, "weight_map"))
            json_skip(j);
        else if (st->n_files)
            json_fail(j, "given twice");
        else
            for (json_object(j); json_key(j, &c->inner) && json_string(j, &shard); c->inner.n = 0)
                st_add_mapping(st, dir, c->inner.s, shard.s);
        if (j->error)
            break;
    }
    buf_free(&shard);
    return json_end(j);
}

static SafeTensors st_open_index(const char *dir, const char *path)
{
    SafeTensors st = {.path = xstrdup(path)};
    StFile index = st_map(path);
    StCursor c = {.json = json_open((const char *)index.bytes, index.size)};
    Buf why = {0};
    if (!st_index_entries(&st, &c, dir)) {
        st_blame(&c, c.json.error, &why);
        die("%s: line %d: %s", path, json_line(&c.json), why.s);
    }
    if (!st.n)
        die("%s: weight_map: missing or empty; expected a file for each tensor", path);
    qsort(st.tensors, st.n, sizeof *st.tensors, st_by_name);
    for (int i = 1; i < st.n; i++)
        if (!strcmp(st.tensors[i - 1].name, st.tensors[i].name))
            die("%s: tensor %s is in %s and in %s; expected one of them", path,
                st_label(st.tensors[i].name).s, st.tensors[i - 1].path, st.tensors[i].path);
    buf_free(&c.outer, &c.inner);
    st_unmap(&index);
    return st;
}

static SafeTensors st_open_dir(const char *dir)
{
    Path one = path_join(dir, "model.safetensors");
    Path index = path_join(dir, "model.safetensors.index.json");
    if (access(one.s, F_OK) == 0)
        return st_open_file(one.s);
    if (access(index.s, F_OK) == 0)
        return st_open_index(dir, index.s);
    die("%s: is not there, nor is model.safetensors.index.json", one.s);
}

static void st_close(SafeTensors *st)
{
    for (int i = 0; i < st->n; i++)
        free(st->tensors[i].name);
    for (int i = 0; i < st->n_files; i++)
        st_unmap(&st->files[i]);
    for (int i = 0; i < st->n_notes; i++) {
        free(st->notes[i].key);
        free(st->notes[i].text);
    }
    free(st->notes);
    free(st->tensors);
    free(st->files);
    free(st->path);
    *st = (SafeTensors){0};
}

/* ---------------------------------------------------------------- tensors */

static const StTensor *st_find(const SafeTensors *st, const char *name)
{
    return st_search(st, 0, st->n, name);
}

static const char *st_note(const SafeTensors *st, const char *key)
{
    for (int i = 0; i < st->n_notes; i++)
        if (!strcmp(st->notes[i].key, key))
            return st->notes[i].text;
    return NULL;
}

/* The tensor of this name; dies where it is missing or has another shape than shape[rank]. */
static const StTensor *st_need(const SafeTensors *st, const char *name, int rank,
                               const int64_t *shape)
{
    const StTensor *t = st_find(st, name);
    if (!t)
        die("%s: tensor %s is missing", st->path, st_label(name).s);
    if (t->rank != rank || (rank && memcmp(t->shape, shape, (size_t)rank * sizeof *shape)))
        die("%s: tensor %s has shape %s; expected %s", t->path, st_label(name).s,
            st_shape_text(t->rank, t->shape).s, st_shape_text(rank, shape).s);
    return t;
}

static float st_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t st_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* 1 sign, 5 exponent and 10 fraction bits: every value is a float. */
static float st_f16_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31;
    uint32_t fraction = half & 1023;
    if (exponent == 0)
        return st_from_bits(sign | st_bits(fraction * 0x1p-24f));
    return st_from_bits(sign | (exponent == 31 ? 255 : exponent - 15 + 127) << 23 | fraction << 13);
}

/* BF16 is the upper half of a float. */
static float st_bf16_to_float(uint16_t upper) { return st_from_bits((uint32_t)upper << 16); }

/* Values [first, first + n) of a tensor as floats; the caller checks the range. */
static void st_read_part(const StTensor *t, size_t first, size_t n, float *out)
{
    if (t->dtype != ST_F32 && t->dtype != ST_F16 && t->dtype != ST_BF16)
        die("%s: tensor %s has dtype %s; expected F32, BF16 or F16", t->path, st_label(t->name).s,
            st_dtypes[t->dtype].name);
    const unsigned char *from = t->data + first * st_dtypes[t->dtype].size;
    if (t->dtype == ST_F32) {
        memcpy(out, from, n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, 2);
        out[i] = t->dtype == ST_F16 ? st_f16_to_float(half) : st_bf16_to_float(half);
    }
}

/* The number of values. */
static size_t st_values(const StTensor *t) { return t->bytes / st_dtypes[t->dtype].size; }

/* Frees the pages wholly within values [first, first + n), so that a model can be read without room
 * for a second one (the system may still cache the file). */
static void st_release(const StTensor *t, size_t first, size_t n)
{
    uintptr_t page = sysconf(_SC_PAGESIZE), size = st_dtypes[t->dtype].size;
    uintptr_t from = (uintptr_t)t->data + first * size, to = from + n * size;
    from = (from + page - 1) / page * page;
    to = to / page * page;
    if (from < to)
        madvise((void *)from, to - from, MADV_DONTNEED);
}

/* ---------------------------------------------------------------- writing */

static size_t st_count(const StOut *t)
{
    size_t count = 1;
    for (int i = 0; i < t->rank; i++)
        count *= (size_t)t->shape[i];
    return count;
}

/* The nearest F16, ties to even (IEEE 754's default); from 65520 up infinity. NaN stays NaN. Below
 * 2^-14, F16 is a fixed-point number: adding 0.5, whose last bit is 2^-24, rounds to it. */
static uint16_t st_float_to_f16(float f)
{
    uint32_t bits = st_bits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000)
        return sign | 0x7E00 | (magnitude >> 13 & 0x3FF);
    if (magnitude >= 0x477FF000)
        return sign | 0x7C00;
    if (magnitude < 0x38800000)
        return sign | (st_bits(fabsf(f) + 0.5f) - 0x3F000000);
    return sign | (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
}

/* The nearest BF16, ties to even. NaN stays NaN. */
static uint16_t st_float_to_bf16(float f)
{
    uint32_t bits = st_bits(f);
    bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
    return nan ? bits >> 16 | 0x40 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

/* A float rounded to a dtype: ST_F32, ST_BF16 or ST_F16. */
static float st_round(float f, int dtype)
{
    if (dtype == ST_F32)
        return f;
    return dtype == ST_F16 ? st_f16_to_float(st_float_to_f16(f))
                           : st_bf16_to_float(st_float_to_bf16(f));
}

/* A tensor's values, in its dtype. */
static void st_put(const StOut *t, FILE *f)
{
    uint16_t half[4096];
    size_t count = st_count(t);
    if (t->dtype == ST_F32 && count)
        fwrite(t->data, sizeof(float), count, f);
    for (size_t i = 0, n; t->dtype != ST_F32 && i < count; i += n) {
        n = count - i < 4096 ? count - i : 4096;
        for (size_t k = 0; k < n; k++)
            half[k] = t->dtype == ST_F16 ? st_float_to_f16(t->data[i + k])
                                         : st_float_to_bf16(t->data[i + k]);
        fwrite(half, sizeof *half, n, f);
    }
}

/* Writes a whole file, or none. Floats come first, then halves, so that all values are aligned.
 * `notes`: more members of __metadata__, texts, each after a comma. */
static void st_write(const char *path, const char *notes, const StOut *tensors, int n)
{
    Buf header = {0};
    size_t end = 0;
    buf_printf(&header, "{\"__metadata__\":{\"format\":\"pt\"%s}", notes);
    for (int size = 4; size >= 2; size -= 2)
        for (const StOut *t = tensors; t < tensors + n; t++) {
            size_t begin = end;
            if (st_dtypes[t->dtype].size != size)
                continue;
            end += st_count(t) * (size_t)size;
            buf_str(&header, ",");
            json_put_string(&header, t->name, strlen(t->name));
            buf_printf(&header, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                       st_dtypes[t->dtype].name, st_shape_text(t->rank, t->shape).s, begin, end);
        }
    buf_str(&header, "}");
    while (header.n % 8)
        buf_str(&header, " ");

    AtomicFile file = atomic_open(path);
    uint64_t length = header.n;
    fwrite(&length, 8, 1, file.f);
    fwrite(header.s, 1, header.n, file.f);
    for (int size = 4; size >= 2; size -= 2)
        for (const StOut *t = tensors; t < tensors + n; t++)
            if (st_dtypes[t->dtype].size == size)
                st_put(t, file.f);
    atomic_close(&file);
    buf_free(&header);
}

#endif
