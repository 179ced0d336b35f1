/* start.h: what comes before the work.
 *
 *   demand_cpu       ends a program that was built for another processor, before main
 *   wait_asleep      threads that wait at a barrier sleep soon: the program, started again */
#ifndef START_H
#define START_H

#include "util.h" /* defines: path_printf */
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

/* ---------------------------------------------------------------- the processor */

/* The compiler may use every instruction that -march=native, or a SIMD= of the Makefile, allows; on
 * a processor without it the program would end by SIGILL. Its macro is 1 where it may. */
#define SPELLED(x) #x
#define WANTS(macro, name, has) \
    if (*SPELLED(macro) == '1' && !(has)) \
        return name;

/* The name of an extension that the program was built with and this processor lacks, or NULL. */
static inline const char *cpu_lacks(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    WANTS(__AVX__, "AVX", __builtin_cpu_supports("avx"))
    WANTS(__AVX2__, "AVX2", __builtin_cpu_supports("avx2"))
    WANTS(__FMA__, "FMA", __builtin_cpu_supports("fma"))
    WANTS(__BMI__, "BMI", __builtin_cpu_supports("bmi"))
    WANTS(__BMI2__, "BMI2", __builtin_cpu_supports("bmi2"))
    WANTS(__AVX512F__, "AVX-512F", __builtin_cpu_supports("avx512f"))
    WANTS(__AVX512CD__, "AVX-512CD", __builtin_cpu_supports("avx512cd"))
    WANTS(__AVX512DQ__, "AVX-512DQ", __builtin_cpu_supports("avx512dq"))
    WANTS(__AVX512BW__, "AVX-512BW", __builtin_cpu_supports("avx512bw"))
    WANTS(__AVX512VL__, "AVX-512VL", __builtin_cpu_supports("avx512vl"))
    WANTS(__AVX512VBMI__, "AVX-512VBMI", __builtin_cpu_supports("avx512vbmi"))
    WANTS(__AVX512IFMA__, "AVX-512IFMA", __builtin_cpu_supports("avx512ifma"))
#elif defined(__wasm_relaxed_simd__)
    /* 1 - 2^-30, which a product that is rounded by itself makes 1. */
    volatile float x = 0x1p-15f;
    v128_t product = wasm_f32x4_relaxed_madd(wasm_f32x4_splat(1 + x), wasm_f32x4_splat(1 - x),
                                             wasm_f32x4_splat(-1));
    WANTS(__wasm_relaxed_simd__, "a fused multiply-add", wasm_f32x4_extract_lane(product, 0) != 0)
#elif defined(__aarch64__) && defined(HWCAP_SVE)
    WANTS(__ARM_FEATURE_ATOMICS, "atomics", getauxval(AT_HWCAP) & HWCAP_ATOMICS)
    WANTS(__ARM_FEATURE_DOTPROD, "dot products", getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
    WANTS(__ARM_FEATURE_SVE, "SVE", getauxval(AT_HWCAP) & HWCAP_SVE)
#endif
    return NULL;
}

#if defined(__GNUC__)
/* main itself may have such instructions. */
__attribute__((constructor)) static void demand_cpu(void)
{
    const char *name = cpu_lacks();
    if (!name)
        return;
    fprintf(stderr, "g2rl: was built for a processor with %s, which this one lacks; build it here: "
            "make\n", name);
    _exit(1);
}
#endif

/* ---------------------------------------------------------------- threads that wait */

/* Threads that wait for others at the end of a loop spin: fastest on a quiet machine, but where
 * other work wants the cores too, a thread that spins takes the time of the one that it waits for,
 * and the program is several times slower. So they shall sleep soon, unless the environment says
 * how. gcc's OpenMP (libgomp) reads that before main, so the program starts itself again, once;
 * where that fails it goes on as it is. clang's (libomp) reads it later. */
static inline void wait_asleep(char **argv)
{
#ifdef _OPENMP
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME"))
        return;
#ifdef __clang__
    (void)argv;
    setenv("OMP_WAIT_POLICY", "passive", 1);
#else
    Path program;
    ssize_t n = readlink("/proc/self/exe", program.s, sizeof program.s - 1);
    if (n <= 0)
        return;
    program.s[n] = 0;
    setenv("GOMP_SPINCOUNT", "1000", 1);
    execv(program.s, argv);
    unsetenv("GOMP_SPINCOUNT");
#endif
#else
    (void)argv;
#endif
}

#endif
