# make            the program, for this machine           make test       every test; TEST=eval: some
# make SIMD=avx2  or avx512, scalar: force a vector set    make debug      g2rl_debug, with sanitizers
# make OMP=0      without OpenMP                           make test-debug its tests
# make CFLAGS=-O1 builds in two thirds of the time, for a program a few percent slower
# make plain      chapter 0, one file of plain C, trains a model in two minutes
# make lesson N=3 write a part of it; without N: a list    make install PREFIX=/usr/local
# make CC=aarch64-linux-gnu-gcc CFLAGS='-O2 -static'       for ARM (NEON); qemu-aarch64 ./g2rl runs it
# how far it can be trusted:
# make mutants    do the tests catch planted bugs?         make kills N=50 kill -9, again and again
# make race       do threads meet? (clang)                 make long STEPS=2000: does memory grow?
# make fuzz       every parser on made-up input (clang), 10 minutes each; FOR=60 TARGET='json math'
# make test-arm   every test of the ARM build, in qemu     make lessons    do the lessons' tests tell?
# make test-wasm  WebAssembly's, under wasmtime            make test-page  the page, in Chromium
# make page       g2rl.html, the page that trains
# make nightly    tests of every build, and fuzz: hours    make clean, make help

CC     ?= cc
SIMD   ?= native
OMP    ?= 1
CFLAGS ?= -O2 -g1
PREFIX ?= /usr/local
WARN    = -Wall -Wextra -Wshadow -Wvla -Wdouble-promotion -Wstrict-prototypes \
          -Wmissing-prototypes -Wno-unknown-pragmas

# The promise of equal bits on every machine stands on these two: no contraction that the text does
# not ask for, and no -ffast-math.
EXACT   = -std=c11 -ffp-contract=off -fno-math-errno

has     = $(shell echo 'int main(void){return 0;}' | $(CC) $(1) -x c - -o /dev/null 2>/dev/null && echo $(1))
fma     = $(shell echo | $(CC) -march=native -dM -E - 2>/dev/null | grep -q __FMA__ && echo -mfma)

ARCH_native := $(or $(call has,-march=native),$(call has,-mcpu=native))
ARCH_avx512 := -mavx512f -mavx2 -mfma
ARCH_avx2   := -mavx2 -mfma
ARCH_scalar  = -DSIMD_SCALAR $(fma)
ifeq ($(origin ARCH_$(SIMD)),undefined)
$(error SIMD=$(SIMD): expected native, avx512, avx2 or scalar)
endif
# A loop of the vector code that begins in the middle of a line is up to 8 % slower.
ALIGN := $(call has,-falign-functions=64) $(call has,-falign-loops=32)
LIBS = -lm
ifneq ($(OMP),0)
OPENMP := $(call has,-fopenmp)
ifeq ($(OPENMP),)
# Apple's clang takes OpenMP's headers and library from Homebrew's libomp, if that is installed.
LIBOMP ?= $(firstword $(wildcard /opt/homebrew/opt/libomp /usr/local/opt/libomp) none)
ifneq ($(call has,-Xclang -fopenmp -I$(LIBOMP)/include -L$(LIBOMP)/lib -lomp),)
OPENMP := -Xclang -fopenmp -I$(LIBOMP)/include
LIBS += -L$(LIBOMP)/lib -lomp
else
$(warning no OpenMP: the program will run on one thread (macOS: brew install libomp))
endif
endif
endif

FLAGS    = $(EXACT) $(ARCH_$(SIMD)) $(ALIGN) $(OPENMP) $(WARN) $(CFLAGS)
# What a build depends on besides its sources; the compiler's macros say what native means here.
BUILT   := $(CC) $(FLAGS) $(LIBS) $(shell echo | $(CC) $(FLAGS) -dM -E - 2>/dev/null | cksum)
SANITIZE = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
SOURCES  = g2rl.c model.c tokenizer.c $(wildcard lib/*/*.h lib/*/*/*.h)
TESTS    = $(wildcard tests/*.h) tests/plain_oracle.c plain.c

all: g2rl

# What --version says; a program that is built here, and not the tests, is built again for it.
COMMIT := $(if $(wildcard .git),$(shell git describe --always --dirty 2>/dev/null))
SAYS    = $(COMMIT:%=-DCOMMIT='"commit %, "')

g2rl: $(SOURCES) .flags .flags-commit
	$(CC) $(FLAGS) $(SAYS) g2rl.c -o $@ $(LIBS)

# Chapter 0 stands alone.
plain:
	$(CC) -O2 -Wall -Wextra plain.c -o $@ -lm
	./plain

test_g2rl.o: test_g2rl.c $(wildcard tests/*.h) $(SOURCES) .flags
	$(CC) $(FLAGS) -c test_g2rl.c -o $@

test_g2rl: test_g2rl.o tests/plain_oracle.c plain.c
	$(CC) $(FLAGS) tests/plain_oracle.c test_g2rl.o -o $@ $(LIBS)

test: g2rl test_g2rl
	./test_g2rl $(TEST)

debug: g2rl_debug

g2rl_debug: $(SOURCES) .flags
	$(CC) $(FLAGS) $(SANITIZE) g2rl.c -o $@ $(LIBS)

test_g2rl_debug: test_g2rl.c $(TESTS) $(SOURCES) .flags
	$(CC) $(FLAGS) $(SANITIZE) test_g2rl.c tests/plain_oracle.c -o $@ $(LIBS)

test-debug: g2rl_debug test_g2rl_debug
	./test_g2rl_debug $(TEST)

mutants:
	sh tests/mutants.sh "$(CC)" "$(EXACT) $(ARCH_$(SIMD)) $(OPENMP) $(LIBS)" $(PART)

kills: g2rl
	sh tests/kill.sh $(or $(N),50)

long: g2rl
	sh tests/long.sh $(or $(STEPS),2000)

FUZZ = $(EXACT) -DSIMD_SCALAR $(WARN) -Wno-unused-function -O1 -g -fno-sanitize-recover=all \
       -fsanitize=fuzzer,address,undefined,float-cast-overflow \
       -fsanitize-ignorelist=tests/fuzz/ignore.txt

fuzz: fuzz_g2rl
	sh tests/fuzz.sh $(or $(FOR),600) $(TARGET)

fuzz_g2rl: tests/fuzz.c tests/check.h tests/report_test.h $(SOURCES)
	clang $(FUZZ) tests/fuzz.c -o $@ -lm

# ThreadSanitizer with Archer, which tells it what OpenMP's barriers order, needs clang and its
# libomp. The first line: a race that is there must be seen.
RACE_CC    = clang
RACE_TESTS = =gemm =invariance =adamw =on_policy =shared_batch =true_gradients \
             =group_bootstrap
race: export TSAN_OPTIONS = ignore_noninstrumented_modules=1
race: export OMP_TOOL_LIBRARIES = $(shell $(RACE_CC) -print-resource-dir)/../../libarcher.so
race: test_g2rl_race
	! ./test_g2rl_race --race >/dev/null 2>&1
	./test_g2rl_race $(RACE_TESTS)

test_g2rl_race: test_g2rl.c $(TESTS) $(SOURCES)
	$(RACE_CC) $(EXACT) $(ARCH_scalar) -fopenmp $(WARN) -O1 -g -fsanitize=thread test_g2rl.c tests/plain_oracle.c -o $@ -lm

ARM_CC = aarch64-linux-gnu-gcc
test-arm:
	$(MAKE) CC=$(ARM_CC) CFLAGS='-O2 -static' test_g2rl
	G2RL_RUNNER=qemu-aarch64 qemu-aarch64 ./test_g2rl $(ARM_TESTS)

nightly:
	$(MAKE) plain
	for cc in gcc clang; do for o in 0 1 2 3; do for omp in 0 1; do \
	    $(MAKE) CC=$$cc CFLAGS="-O$$o -g -Werror" OMP=$$omp test || exit 1; \
	done; done; done
	for simd in avx2 scalar; do $(MAKE) SIMD=$$simd test || exit 1; done
	$(MAKE) CC=musl-gcc OMP=0 test
	$(MAKE) test-debug
	$(MAKE) race RACE_TESTS=
	$(MAKE) test-arm
	$(MAKE) fuzz

# WebAssembly for the page: with relaxed SIMD, whose multiply-add is one instruction, and without,
# for engines that refuse a module with it. Debian: clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32
WASM_CC ?= clang-19
WASM = $(WASM_CC) --target=wasm32-wasi -msimd128 $(EXACT) $(WARN) -Werror -O2 \
       -include page/wasi.h -Ipage -Wl,-z,stack-size=8388608 -Wl,--strip-all \
       -lwasi-emulated-getpid -lwasi-emulated-mman -lwasi-emulated-signal

wasm: g2rl.wasm g2rl-relaxed.wasm

g2rl.wasm: $(SOURCES) page/wasi.h .flags-commit
	$(WASM) $(SAYS) g2rl.c -o $@

g2rl-relaxed.wasm: $(SOURCES) page/wasi.h .flags-commit
	$(WASM) $(SAYS) -mrelaxed-simd g2rl.c -o $@

page: g2rl.html

g2rl.html: g2rl.wasm g2rl-relaxed.wasm $(wildcard page/*.html page/*.css page/*.js page/*.sh)
	sh page/build.sh >$@.tmp && mv $@.tmp $@

test_g2rl.wasm: tests/wasm.c $(TESTS) $(SOURCES) page/wasi.h
	$(WASM) -Wno-unused-function tests/wasm.c -o $@

test_g2rl-relaxed.wasm: tests/wasm.c $(TESTS) $(SOURCES) page/wasi.h
	$(WASM) -Wno-unused-function -mrelaxed-simd tests/wasm.c -o $@

# make test-page STEPS="400 15" takes the page's own sizes.
test-page: g2rl g2rl.html
	python3 tests/page.py g2rl.html ./g2rl $(STEPS)

test-wasm: g2rl wasm test_g2rl.wasm test_g2rl-relaxed.wasm
	sh tests/wasm.sh

lesson:
	@MAKE="$(MAKE)" sh doc/lessons/lesson.sh $(N)

lessons:
	@MAKE="$(MAKE)" sh doc/lessons/lesson.sh check

install: g2rl
	mkdir -p '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 g2rl '$(DESTDIR)$(PREFIX)/bin/g2rl'

clean:
	rm -f g2rl plain g2rl_debug test_g2rl test_g2rl.o test_g2rl_debug test_g2rl_race fuzz_g2rl \
	    *.wasm g2rl.html .flags .flags-commit

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

# Rebuilds when the compiler, the flags or the processor changes.
.flags: force
	@echo '$(BUILT)' | cmp -s - $@ || echo '$(BUILT)' > $@

.flags-commit: force
	@echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' > $@

force:
.PHONY: all plain page wasm test test-wasm test-page test-debug debug lesson lessons mutants fuzz kills long race test-arm nightly install clean help force
