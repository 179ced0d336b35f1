/* wasm.c: the tests of vectors and products in WebAssembly, where the other tests' processes do not
 * exist. See tests/wasm.sh. */
#include <stdio.h>

static inline char *mkdtemp(char *path) { return path; }
static inline int execvp(const char *path, char *const *argv) { return (void)path, (void)argv, -1; }
static inline FILE *no_file(void) { return NULL; }
#define tmpfile no_file

#include "kernels_test.h"

int main(void)
{
    test_fma();
    test_exp();
    test_softmax();
    test_rows();
    test_gemm();
    printf("%s  %s: %d checks, %d failed\n", n_failures ? "FAIL" : "ok  ", SIMD_NAME, n_checks,
           n_failures);
    return n_failures > 0;
}
