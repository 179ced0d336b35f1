/* csv.h: the numbers of one run as a table, for spreadsheets and for loggers of other tools.
 *
 *   report_csv    metrics.jsonl and eval.jsonl on stdout: a header, then a row a step
 *
 * A column is a member that is a number in some row, `step` the first; columns of eval.jsonl begin
 * with eval/. A cell is empty where the step has no such number. */
#ifndef CSV_H
#define CSV_H

#include "runs.h" /* defines: lines_read, line_check, check_step, read_number */

enum { CSV_MOST = 1000 };

typedef struct {
    double step, *cell; /* [n_cells], by column; the columns beyond are empty */
    int n_cells;
} CsvRow;

typedef struct {
    const char *prefix; /* of the columns of the file that is being read */
    Buf *column;
    CsvRow *row;
    int n_columns, n_rows;
    int at;        /* the row of the file's last line: rows of one file come in order */
    double before; /* its step; -1: none yet */
} Csv;

static inline int csv_column(Csv *csv, const char *key)
{
    Buf name = {0};
    buf_printf(&name, "%s%s", csv->prefix, key);
    for (int i = 0; i < csv->n_columns; i++)
        if (!strcmp(csv->column[i].s, name.s)) {
            buf_free(&name);
            return i;
        }
    APPEND(csv->column, csv->n_columns, name);
    return csv->n_columns - 1;
}

static inline void csv_set(CsvRow *row, int column, double x)
{
    while (row->n_cells <= column)
        APPEND(row->cell, row->n_cells, NO_NUMBER);
    row->cell[column] = x;
}

/* The row of a step; a new one stands where steps go up. */
static inline CsvRow *csv_row(Csv *csv, double step)
{
    while (csv->at < csv->n_rows && csv->row[csv->at].step < step)
        csv->at++;
    if (csv->at == csv->n_rows || csv->row[csv->at].step > step) {
        APPEND(csv->row, csv->n_rows, (CsvRow){0});
        memmove(csv->row + csv->at + 1, csv->row + csv->at,
                (csv->n_rows - 1 - csv->at) * sizeof(CsvRow));
        csv->row[csv->at] = (CsvRow){.step = step};
    }
    return &csv->row[csv->at];
}

static inline void csv_line(Json *j, const char *path, int line, void *to)
{
    Csv *csv = to;
    CsvRow read = {.step = -1}; /* the step may come last */
    Buf key = {0};
    for (json_object(j); json_key(j, &key);) {
        double x;
        if (!strchr("-0123456789", json_peek(j)))
            json_skip(j);
        else if (json_number(j, &x) && !strcmp(key.s, "step"))
            read.step = x;
        else if (!j->error)
            csv_set(&read, csv_column(csv, key.s), x);
    }
    line_check(j, path, line, key.s);
    if (csv->n_columns > CSV_MOST)
        die("%s: line %d: numbers of more than %d names", path, line, CSV_MOST);
    check_step(path, line, csv->before, read.step);
    csv->before = read.step;
    CsvRow *row = csv_row(csv, read.step);
    for (int i = 0; i < read.n_cells; i++)
        if (!isnan(read.cell[i]))
            csv_set(row, i, read.cell[i]);
    free(read.cell);
    buf_free(&key);
}

/* A text as a field (RFC 4180): in quotes where it needs them. */
static inline void csv_field(Buf *b, const char *s)
{
    bool plain = !s[strcspn(s, ",\"\r\n")];
    buf_str(b, plain ? "" : "\"");
    for (; *s; s++)
        buf_add(b, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
    buf_str(b, plain ? "" : "\"");
}

static inline void report_csv(const char *dir)
{
    Csv csv = {0};
    Buf b = {0};
    const char *const files[][2] = {{"metrics.jsonl", ""}, {"eval.jsonl", "eval/"}};
    for (int k = 0; k < 2; k++) {
        Path path = path_join(dir, files[k][0]);
        csv.prefix = files[k][1];
        csv.at = 0;
        csv.before = -1;
        if (k == 0 || is_file(path.s))
            lines_read(path.s, csv_line, &csv);
    }
    buf_str(&b, "step");
    for (int i = 0; i < csv.n_columns; i++) {
        buf_str(&b, ",");
        csv_field(&b, csv.column[i].s);
        buf_free(&csv.column[i]);
    }
    for (int r = 0; r < csv.n_rows; r++) {
        buf_printf(&b, "\n%.0f", csv.row[r].step);
        for (int i = 0; i < csv.n_columns; i++) {
            buf_str(&b, ",");
            if (i < csv.row[r].n_cells && !isnan(csv.row[r].cell[i]))
                json_put_number(&b, csv.row[r].cell[i]);
        }
        free(csv.row[r].cell);
    }
    puts(b.s);
    free(csv.column);
    free(csv.row);
    buf_free(&b);
}

#endif
