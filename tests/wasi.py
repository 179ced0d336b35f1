# Runs a WebAssembly program under wasmtime (pip install wasmtime), as qemu runs one for ARM:
#   python3 tests/wasi.py g2rl.wasm sft --preset nano ...
# It sees all files, and relative paths begin in the working directory, as for any program.
import sys

import wasmtime

engine = wasmtime.Engine()
wasi = wasmtime.WasiConfig()
wasi.argv = sys.argv[1:]
wasi.inherit_env()
wasi.inherit_stdin()
wasi.inherit_stdout()
wasi.inherit_stderr()
wasi.preopen_dir(".", ".")
wasi.preopen_dir("/", "/")
store = wasmtime.Store(engine)
store.set_wasi(wasi)
linker = wasmtime.Linker(engine)
linker.define_wasi()
program = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
try:
    program.exports(store)["_start"](store)
except wasmtime.ExitTrap as end:
    sys.exit(end.code)
