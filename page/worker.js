// worker.js: one run of the program. A worker is a process: it gets the compiled module, the words
// of a command and the files that are there, and says what happens, by messages to the page:
//
//   {text, error}             what the program wrote to stdout, or (error) to stderr
//   {path, append: bytes}     a line or more at the end of a .jsonl file, as it is written
//   {path, bytes}             a file that was closed, whole
//   {path, to} or {path, gone} a file or directory that was renamed or removed
//   {exit}                    the exit status
//
// Below is the part of WASI (preview 1) that the program calls: files in memory, a clock, no
// signals. Numbers that functions return are WASI's errno.

'use strict'

const OK = 0, BADF = 8, EXIST = 20, ISDIR = 31, NOENT = 44, NOTDIR = 54, NOTEMPTY = 55
const CHARACTERS = 2, DIRECTORY = 3, FILE = 4 // kinds of files

let memory          // the program's
let files           // path -> {bytes, size, written}; bytes may have room for more
let directories     // a Set of paths; '' is the top
let words           // argv
const open = []     // by file descriptor: {kind, path, file, at, append}
const decode = new TextDecoder(), encode = new TextEncoder()

const view = () => new DataView(memory.buffer)
const bytesAt = (at, n) => new Uint8Array(memory.buffer, at, n)
const textAt = (at, n) => decode.decode(bytesAt(at, n))

// A path below directory fd, without . and empty parts.
function pathAt(fd, at, n) {
    const whole = open[fd].path + '/' + textAt(at, n)
    return whole.split('/').filter(part => part && part !== '.').join('/')
}
const parent = path => path.slice(0, Math.max(0, path.lastIndexOf('/')))
const kindOf = path => files.has(path) ? FILE : directories.has(path) ? DIRECTORY : 0

// The names in a directory.
function names(directory) {
    const all = [...files.keys(), ...directories]
    return all.filter(path => path && parent(path) === directory)
}

// Calls f(bytes) for each of n buffers, until one is not filled; f returns how many it has used.
function eachBuffer(buffers, n, total, f) {
    let sum = 0
    for (let i = 0; i < n; i++) {
        const size = view().getUint32(buffers + 8 * i + 4, true)
        const used = f(bytesAt(view().getUint32(buffers + 8 * i, true), size))
        sum += used
        if (used < size) break
    }
    view().setUint32(total, sum, true)
    return OK
}

function readAt(file, from, to) {
    const part = file.bytes.subarray(from, Math.min(from + to.length, file.size))
    to.set(part)
    return part.length
}

function writeAt(file, at, from) {
    if (at + from.length > file.bytes.length) {
        const larger = new Uint8Array(2 * (at + from.length))
        larger.set(file.bytes)
        file.bytes = larger
    }
    file.bytes.set(from, at)
    file.size = Math.max(file.size, at + from.length)
    file.written = true
}

// Tells the page the whole of a file that was written.
function tell(path) {
    const file = files.get(path)
    if (file && file.written) postMessage({path, bytes: file.bytes.slice(0, file.size)})
    if (file) file.written = false
}

function putStat(at, kind, size) {
    bytesAt(at, 64).fill(0)
    view().setUint8(at + 16, kind)
    view().setBigUint64(at + 24, 1n, true)
    view().setBigUint64(at + 32, BigInt(size), true)
    return OK
}

function putWords(list, pointers, text) {
    for (const word of list) {
        view().setUint32(pointers, text, true)
        pointers += 4
        const bytes = encode.encode(word + '\0')
        bytesAt(text, bytes.length).set(bytes)
        text += bytes.length
    }
    return OK
}

function putSizes(list, count, size) {
    view().setUint32(count, list.length, true)
    view().setUint32(size, list.reduce((n, word) => n + encode.encode(word).length + 1, 0), true)
    return OK
}

const wasi = {
    args_get: (pointers, text) => putWords(words, pointers, text),
    args_sizes_get: (count, size) => putSizes(words, count, size),
    environ_get: () => OK,
    environ_sizes_get: (count, size) => putSizes([], count, size),

    clock_time_get(clock, precision, at) {
        view().setBigUint64(at, BigInt(Math.round(performance.now() * 1e6)), true)
        return OK
    },

    fd_close(fd) {
        if (!open[fd]) return BADF
        const {path} = open[fd]
        delete open[fd]
        tell(path)
        return OK
    },
    fd_fdstat_get(fd, at) {
        if (!open[fd]) return BADF
        bytesAt(at, 24).fill(0)
        view().setUint8(at, open[fd].kind)
        view().setUint16(at + 2, open[fd].append ? 1 : 0, true)
        view().setBigUint64(at + 8, 0xFFFFFFFFFFFFFFFFn, true) // rights
        view().setBigUint64(at + 16, 0xFFFFFFFFFFFFFFFFn, true)
        return OK
    },
    fd_fdstat_set_flags: fd => open[fd] ? OK : BADF,
    fd_filestat_get(fd, at) {
        if (!open[fd]) return BADF
        return putStat(at, open[fd].kind, open[fd].file ? open[fd].file.size : 0)
    },
    fd_filestat_set_size(fd, size) {
        const file = open[fd] && open[fd].file
        if (!file) return BADF
        const cut = new Uint8Array(Number(size))
        cut.set(file.bytes.subarray(0, Math.min(file.size, cut.length)))
        Object.assign(file, {bytes: cut, size: cut.length, written: true})
        return OK
    },
    fd_prestat_get(fd, at) { // descriptor 3 is the directory "."
        if (fd !== 3) return BADF
        view().setUint32(at, 0, true)
        view().setUint32(at + 4, 1, true)
        return OK
    },
    fd_prestat_dir_name(fd, at) {
        bytesAt(at, 1)[0] = 46
        return OK
    },
    fd_pread(fd, buffers, n, from, total) {
        const file = open[fd] && open[fd].file
        let at = Number(from)
        if (!file) return BADF
        return eachBuffer(buffers, n, total, to => {
            const read = readAt(file, at, to)
            at += read
            return read
        })
    },
    fd_read(fd, buffers, n, total) {
        const from = open[fd]
        if (!from) return BADF
        if (from.kind === DIRECTORY) return ISDIR
        return eachBuffer(buffers, n, total, to => {
            const read = from.file ? readAt(from.file, from.at, to) : 0 // stdin is empty
            from.at += read
            return read
        })
    },
    fd_write(fd, buffers, n, total) {
        const to = open[fd]
        if (!to || to.kind === DIRECTORY) return BADF
        return eachBuffer(buffers, n, total, from => {
            if (!to.file)
                postMessage({text: decode.decode(from), error: fd === 2})
            else {
                to.at = to.append ? to.file.size : to.at
                const atEnd = to.at === to.file.size
                writeAt(to.file, to.at, from)
                to.at += from.length
                if (atEnd && to.path.endsWith('.jsonl') && from.length)
                    postMessage({path: to.path, append: from.slice()})
            }
            return from.length
        })
    },
    fd_readdir(fd, at, size, cookie, used) {
        if (!open[fd] || open[fd].kind !== DIRECTORY) return NOTDIR
        const list = names(open[fd].path)
        let n = 0
        for (let i = Number(cookie); i < list.length && n < size; i++) {
            const name = encode.encode(list[i].slice(list[i].lastIndexOf('/') + 1))
            const entry = new Uint8Array(24 + name.length), head = new DataView(entry.buffer)
            head.setBigUint64(0, BigInt(i + 1), true) // the next one
            head.setBigUint64(8, BigInt(i + 1), true) // a number of its own
            head.setUint32(16, name.length, true)
            head.setUint8(20, kindOf(list[i]))
            entry.set(name, 24)
            const part = entry.subarray(0, size - n) // one that is cut is asked for again
            bytesAt(at + n, part.length).set(part)
            n += part.length
        }
        view().setUint32(used, n, true)
        return OK
    },
    fd_seek(fd, offset, whence, at) {
        const file = open[fd]
        if (!file || !file.file) return BADF
        file.at = Number(offset) + [0, file.at, file.file.size][whence]
        view().setBigUint64(at, BigInt(file.at), true)
        return OK
    },
    fd_sync: () => OK,

    path_create_directory(fd, at, n) {
        const path = pathAt(fd, at, n)
        if (kindOf(path)) return EXIST
        if (!directories.has(parent(path))) return NOENT
        directories.add(path)
        return OK
    },
    path_filestat_get(fd, flags, at, n, stat) {
        const path = pathAt(fd, at, n), kind = kindOf(path)
        return kind ? putStat(stat, kind, kind === FILE ? files.get(path).size : 0) : NOENT
    },
    path_open(fd, lookup, at, n, how, rights, inherited, flags, result) {
        const path = pathAt(fd, at, n), create = how & 1, exclusive = how & 4, truncate = how & 8
        let kind = kindOf(path)
        if (kind && create && exclusive) return EXIST
        if (how & 2 && kind === FILE) return NOTDIR
        if (!kind) {
            if (!create || !directories.has(parent(path))) return NOENT
            files.set(path, {bytes: new Uint8Array(0), size: 0, written: true})
            kind = FILE
        }
        const file = files.get(path)
        if (file && truncate) Object.assign(file, {size: 0, written: true})
        let free = 3
        while (open[free]) free++
        open[free] = {kind, path, file, at: 0, append: flags & 1}
        view().setUint32(result, free, true)
        return OK
    },
    path_remove_directory(fd, at, n) {
        const path = pathAt(fd, at, n)
        if (!directories.has(path)) return NOENT
        if (names(path).length) return NOTEMPTY
        directories.delete(path)
        return OK
    },
    path_rename(fd, at, n, toFd, toAt, toN) {
        const from = pathAt(fd, at, n), to = pathAt(toFd, toAt, toN)
        const moved = path => to + path.slice(from.length)
        const below = path => path === from || path.startsWith(from + '/')
        if (!kindOf(from)) return NOENT
        for (const path of [...directories].filter(below)) {
            directories.delete(path)
            directories.add(moved(path))
        }
        for (const path of [...files.keys()].filter(below)) {
            tell(path)
            files.set(moved(path), files.get(path))
            files.delete(path)
        }
        for (const file of open)
            if (file && file.file && below(file.path)) file.path = moved(file.path)
        postMessage({path: from, to})
        return OK
    },
    path_unlink_file(fd, at, n) {
        const path = pathAt(fd, at, n)
        if (!files.delete(path)) return kindOf(path) ? ISDIR : NOENT
        postMessage({path, gone: true})
        return OK
    },

    poll_oneoff(asked, events, n, count) { // files are ready, and no clock is waited for
        for (let i = 0; i < n; i++) {
            bytesAt(events + 32 * i, 32).fill(0)
            bytesAt(events + 32 * i, 8).set(bytesAt(asked + 48 * i, 8))
            view().setUint8(events + 32 * i + 10, view().getUint8(asked + 48 * i + 8))
        }
        view().setUint32(count, n, true)
        return OK
    },
    proc_exit(status) { throw {status} },
}

onmessage = async ({data}) => {
    words = ['g2rl', ...data.words]
    files = new Map()
    directories = new Set([''])
    for (const [path, bytes] of data.files) {
        files.set(path, {bytes, size: bytes.length, written: false})
        for (let dir = parent(path); dir; dir = parent(dir)) directories.add(dir)
    }
    for (const fd of [0, 1, 2]) open[fd] = {kind: CHARACTERS, path: ''}
    open[3] = {kind: DIRECTORY, path: ''}
    const program = await WebAssembly.instantiate(data.module, {wasi_snapshot_preview1: wasi})
    memory = program.exports.memory
    let exit = 0
    try {
        program.exports._start()
    } catch (end) {
        if (end.status === undefined)
            postMessage({text: `g2rl: ${end}\n`, error: true})
        exit = end.status === undefined ? 1 : end.status
    }
    for (const path of files.keys()) tell(path)
    postMessage({exit})
}
