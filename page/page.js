// page.js: the page around the program. The program runs in workers, a worker a command
// (worker.js); the files that they write are kept here, on `disk`. Text of the program and of the
// model reaches the page by textContent alone.

'use strict'

const TASK = 'maze:size=4,loops=2', GROUP = 8
const METHODS = ['grpo', 'g2rl'], NAMES = {base: '', grpo: 'GRPO', g2rl: 'G2RL'}
const get = id => document.getElementById(id)

const disk = new Map()    // path -> an array of Uint8Arrays, the pieces of the file
const running = new Set() // workers
let engine                // {module, name, exact}: the compiled program
let finished = {}         // by run, base, grpo, g2rl: the settings it was made with
let rows = {}             // by path of a .jsonl file: its rows so far
let generation = 0        // counts starts and stops: what belongs to an earlier one is dropped

// ---------------------------------------------------------------- elements

// An element of HTML or, by a name with a prefix, SVG: make('svg:path', {d}, child or text, ...)
function make(name, attributes, ...children) {
    const svg = name.startsWith('svg:')
    const node = svg ? document.createElementNS('http://www.w3.org/2000/svg', name.slice(4))
        : document.createElement(name)
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value)
    node.append(...children)
    return node
}
const fixed = (x, digits) => x.toFixed(digits).replace('-', '\u2212')
const signed = (x, digits) => (x >= 0 ? '+' : '') + fixed(x, digits)
const percent = x => Math.round(100 * x) + ' %'

// The next number above x that is short to write.
function roundUp(x) {
    const unit = 10 ** Math.floor(Math.log10(x))
    return unit * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find(digits => digits * unit >= x)
}

// Draws curves, [{run, points: [[x, y], ...]}], into an svg: y from 0 to `high`, or as far as the
// points go. `say` writes a value; a curve's name and last value stand at its end.
function draw(svg, curves, {steps, high = 0, say}) {
    const width = 320, height = 190, left = 40, right = 84, top = 12, floor = height - 22
    const most = high || roundUp(Math.max(.01, ...curves.flatMap(c => c.points.map(p => p[1]))))
    const x = step => left + step / Math.max(1, steps) * (width - left - right)
    const y = value => floor - value / most * (floor - top)
    const at = (name, x, y, text, anchor) =>
        make('svg:text', {class: name, x, y, 'text-anchor': anchor}, text)
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
    svg.replaceChildren(
        make('svg:path', {class: 'axis', d: `M${left} ${top}V${floor}H${width - right}`}),
        at('tick', left - 6, top + 8, say(most), 'end'), at('tick', left - 6, floor, say(0), 'end'),
        at('tick', left, height - 6, '0', 'middle'),
        at('tick', width - right, height - 6, String(steps), 'middle'))
    const ends = curves.filter(curve => curve.points.length)
        .map(curve => [curve, curve.points[curve.points.length - 1]])
        .sort((a, b) => b[1][1] - a[1][1])
    const place = ends.map(end => y(end[1][1]) + 4) // of the names: at least a line apart
    const push = (14 - (place[1] - place[0])) / 2
    if (push > 0) {
        place[0] -= push
        place[1] += push
    }
    ends.forEach(([curve, [step, value]], i) => {
        const line = curve.points.map(p => x(p[0]).toFixed(1) + ' ' + y(p[1]).toFixed(1))
        svg.append(make('svg:path', {class: `curve ${curve.run}`, d: 'M' + line.join('L')}),
            at(`name ${curve.run}`, x(step) + 5, place[i],
                `${NAMES[curve.run]} ${say(value)}`.trim(), 'start'))
    })
    svg.setAttribute('aria-label', ends.length === 0 ? 'no points yet' : ends.map(([curve, end]) =>
        `${NAMES[curve.run]} step ${end[0]}: ${say(end[1])}`).join('; '))
}

// A maze, from its prompt (a digit a cell: 1 open to the east, 2 to the south), and a way in it,
// from its moves (0 east, 1 south, 2 west, 3 north), up to the wall where it ends.
function drawMaze(prompt, moves, isRight) {
    const open = [...prompt.replace(':', '')].map(Number), size = Math.sqrt(open.length)
    const svg = make('svg:svg', {class: 'maze', viewBox: `-.1 -.1 ${size + .2} ${size + .2}`,
        'aria-hidden': 'true'})
    let walls = `M0 0H${size}M0 0V${size}`
    open.forEach((bits, cell) => {
        const column = cell % size, row = (cell - column) / size
        if (!(bits & 1)) walls += `M${column + 1} ${row}v1`
        if (!(bits & 2)) walls += `M${column} ${row + 1}h1`
    })
    let column = 0, row = 0, way = 'M.5 .5', cross = ''
    for (const move of moves) {
        const side = '0123'.indexOf(move), step = [[1, 0], [0, 1], [-1, 0], [0, -1]][side]
        if (!step) break
        const toColumn = column + step[0], toRow = row + step[1]
        const owner = side < 2 ? row * size + column : toRow * size + toColumn
        if (toColumn < 0 || toRow < 0 || !(open[owner] & (side % 2 ? 2 : 1))) {
            const x = column + .5 + step[0] * .4, y = row + .5 + step[1] * .4
            way += `L${x} ${y}`
            cross = `M${x - .14} ${y - .14}l.28 .28m0 -.28l-.28 .28`
            break
        }
        column = toColumn
        row = toRow
        way += `L${column + .5} ${row + .5}`
    }
    svg.append(make('svg:path', {class: 'wall', d: walls}),
        make('svg:rect', {class: 'end', x: size - .7, y: size - .7, width: .4, height: .4}),
        make('svg:path', {class: 'way ' + (isRight ? 'right' : 'wrong'), d: way}),
        make('svg:circle', {class: 'end', cx: .5, cy: .5, r: .18}),
        make('svg:path', {class: 'cross', d: cross}))
    return svg
}

// ---------------------------------------------------------------- the program

const unpack = async id => {
    const packed = Uint8Array.from(atob(get(id).textContent.trim()), c => c.charCodeAt(0))
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))
    return new Uint8Array(await new Response(stream).arrayBuffer())
}
const workerUrl = URL.createObjectURL(new Blob([get('worker').textContent],
    {type: 'text/javascript'}))

function fileBytes(path) {
    const pieces = disk.get(path) || []
    const bytes = new Uint8Array(pieces.reduce((n, piece) => n + piece.length, 0))
    let at = 0
    for (const piece of pieces) {
        bytes.set(piece, at)
        at += piece.length
    }
    return bytes
}

function putText(path, text) { disk.set(path, [new TextEncoder().encode(text)]) }

// Whole lines of a .jsonl file that grows become rows.
const tails = new Map()
function addRows(path, bytes) {
    const lines = ((tails.get(path) || '') + new TextDecoder().decode(bytes)).split('\n')
    tails.set(path, lines.pop())
    rows[path] = (rows[path] || []).concat(lines.filter(Boolean).map(line => JSON.parse(line)))
}

function forget(below) {
    for (const path of [...disk.keys()]) if (path.startsWith(below)) disk.delete(path)
    for (const path of Object.keys(rows)) if (path.startsWith(below)) delete rows[path]
    for (const path of [...tails.keys()]) if (path.startsWith(below)) tails.delete(path)
}

// A message of a worker about a file.
function keep({path, append, bytes, to, gone}) {
    if (append) {
        if (!disk.has(path)) disk.set(path, [])
        disk.get(path).push(append)
        addRows(path, append)
    } else if (bytes)
        disk.set(path, [bytes])
    else
        for (const file of [...disk.keys()])
            if (file === path || file.startsWith(path + '/')) {
                if (!gone) disk.set(to + file.slice(path.length), disk.get(file))
                disk.delete(file)
            }
}

// Runs a command on the files below the paths `see`. Resolves to its stdout; rejects with the last
// line of its stderr. `tell(message)` hears of every file.
function run(words, see = [], tell = () => {}) {
    return new Promise((resolve, reject) => {
        const worker = new Worker(workerUrl), began = generation
        let out = '', said = ''
        running.add(worker)
        get('log').append('$ g2rl ' + words.join(' ') + '\n')
        worker.onmessage = ({data}) => {
            if (began !== generation) return
            if (data.exit !== undefined) {
                worker.terminate()
                running.delete(worker)
                data.exit ? reject(new Error(said.trim().split('\n').pop())) : resolve(out)
            } else if (data.error) {
                said = (said + data.text).slice(-2000)
                get('log').append(data.text)
            } else if (data.text !== undefined)
                out += data.text
            else {
                keep(data)
                tell(data)
            }
        }
        worker.onerror = event => reject(new Error(event.message))
        const files = [...disk.keys()].filter(path => see.some(dir => path.startsWith(dir)))
        worker.postMessage({module: engine.module, words,
            files: files.map(path => [path, fileBytes(path)])})
    })
}

// Chooses the program's build: one that multiplies and adds in one instruction (relaxed SIMD),
// where the browser has that and rounds once; else one that makes the same bits with more
// arithmetic.
async function load() {
    for (const id of ['wasm-relaxed', 'wasm-exact']) {
        const bytes = await unpack(id)
        if (!WebAssembly.validate(bytes)) continue
        engine = {module: await WebAssembly.compile(bytes), exact: id === 'wasm-exact'}
        try {
            engine.name = (await run(['--version'])).trim()
            break
        } catch (error) {
            engine = undefined
        }
    }
    if (!engine) throw new Error('this browser cannot run WebAssembly with SIMD')
    if (engine.exact) {
        get('base-steps').value = 60
        get('rl-steps').value = 10
        get('problems').textContent = 10
    }
    get('engine').textContent = engine.name + (engine.exact ? ': this browser lacks the fused ' +
        'multiply-add of relaxed SIMD. The program makes the same bits about ten times more ' +
        'slowly, so the run is shorter here, and the model stays worse.' : '')
}

// ---------------------------------------------------------------- the two parts

const settings = () => ({base: Number(get('base-steps').value), rl: Number(get('rl-steps').value),
    seed: Number(get('seed').value)})
const every = steps => Math.max(1, Math.ceil(steps / 6))

const sftWords = s => ['sft', '--preset', 'nano', '--task', TASK, '--steps', s.base,
    '--seed', s.seed, '--out', 'runs/base']
const trainWords = (s, method) => ['train', '--method', method, '--model', 'runs/base',
    '--task', TASK, '--steps', s.rl, '--rollouts', GROUP, '--seed', s.seed,
    '--out', 'runs/' + method]

function status(text, share = 0) {
    get('status').textContent = text
    get('progress').value = share
}

// "about 40 s left", after a share of the time that began at `since`.
function left(since, share) {
    const seconds = (performance.now() - since) / 1000 * (1 - share) / share
    return !(seconds < 3600) ? '' : seconds > 90 ? `, about ${Math.round(seconds / 60)} min left`
        : `, about ${Math.ceil(seconds / 5) * 5} s left`
}

let asked = false // a frame in which all is drawn again
function redraw() {
    if (asked) return
    asked = true
    requestAnimationFrame(() => {
        asked = false
        drawAll()
    })
}

function drawAll() {
    const s = settings()
    const curves = (file, key, runs = METHODS) => runs.map(name => ({run: name,
        points: (rows[`runs/${name}/${file}.jsonl`] || []).filter(row => row[key] !== undefined)
            .map(row => [row.step, row[key]])}))
    draw(get('loss'), curves('metrics', 'loss', ['base']), {steps: s.base, say: x => fixed(x, 2)})
    draw(get('pass'), curves('eval', 'pass@1'), {steps: s.rl, high: 1, say: percent})
    draw(get('distinct'), curves('eval', 'distinct_right@16'),
        {steps: s.rl, say: x => fixed(x, 2)})
    draw(get('entropy'), curves('metrics', 'entropy'), {steps: s.rl, say: x => fixed(x, 2)})
    draw(get('dead'), curves('metrics', 'frac_dead'), {steps: s.rl, high: 1, say: percent})
    get('hashes').tBodies[0].replaceChildren(...['base', ...METHODS].flatMap(name => {
        const last = (rows[`runs/${name}/metrics.jsonl`] || []).slice(-1)[0]
        return last ? [make('tr', {}, make('td', {}, NAMES[name] || 'part 1'),
            make('td', {}, String(last.step)),
            make('td', {}, make('code', {id: 'hash-' + name}, last.weights_hash)))] : []
    }))
    get('commands').textContent = [sftWords(s), ...METHODS.map(name => trainWords(s, name))]
        .map(words => './g2rl ' + words.join(' ')).join('\n')
}

// What the model of a checkpoint answers to six mazes.
let sampling = false
async function showSamples(checkpoint, step) {
    sampling = true
    const file = 'samples.jsonl'
    try {
        await run(['eval', '--model', checkpoint, '--task', TASK, '--problems', 6, '--samples', 1,
            '--responses', file], [checkpoint])
        const lines = new TextDecoder().decode(fileBytes(file)).trim().split('\n')
        get('samples').replaceChildren(...lines.map(line => {
            const row = JSON.parse(line)
            const isRight = row.reward > 0
            return make('div', {class: 'maze-box'}, drawMaze(row.prompt, row.response, isRight),
                make('span', {class: isRight ? 'right' : 'wrong'}, isRight ? 'right' : 'wrong'),
                make('span', {class: 'away'}, `, moves ${row.response}: ${row.reason}`))
        }))
        get('samples-note').textContent = `Its answers to six new mazes after ${step} steps: ` +
            'from the dot to the square, entering no cell twice. A cross is a wall in the way.'
    } finally {
        sampling = false
    }
}

async function trainBase(s) {
    const since = performance.now()
    let samples = Promise.resolve()
    forget('runs/')
    finished = {}
    await run([...sftWords(s), '--save-every', every(s.base), '--keep', 1], [], ({path, to}) => {
        const steps = rows['runs/base/metrics.jsonl'] || [], done = steps.length
        const saved = /^runs\/base\/checkpoint-(\d+)$/.exec(to || '')
        if (saved && !sampling) samples = showSamples(to, Number(saved[1])).catch(() => {})
        if (path !== 'runs/base/metrics.jsonl' || !done) return
        status(`Part 1: step ${done} of ${s.base}${left(since, done / s.base)}`, done / s.base)
        redraw()
    })
    finished.base = s.base + ' ' + s.seed
    await samples
    await showSamples('runs/base/checkpoint-' + s.base, s.base)
}

// Both methods at once, each in a worker of its own.
async function trainMethods(s) {
    const since = performance.now()
    const done = name => (rows[`runs/${name}/metrics.jsonl`] || []).length
    for (const name of METHODS) forget(`runs/${name}/`)
    await Promise.all(METHODS.map(async name => {
        const problems = get('problems').textContent
        await run([...trainWords(s, name), '--eval-every', every(s.rl), '--problems', problems,
            '--samples', 16, '--ledger', 'short'], ['runs/base'], ({path}) => {
            if (!path.endsWith('.jsonl')) return
            const share = (done('grpo') + done('g2rl')) / 2 / s.rl
            status(`Part 2: step ${done(name)} of ${s.rl}${share ? left(since, share) : ''}`, share)
            redraw()
            if (path.endsWith('rollouts.jsonl') && name === 'g2rl') showGroups()
        })
    }))
    await run(['report', 'runs/grpo', 'runs/g2rl', '--out', 'runs/report.html'], ['runs/'])
}

async function start() {
    const s = settings(), key = s.base + ' ' + s.seed
    const bad = get('settings').querySelector(':invalid')
    if (bad) {
        get('settings').open = true
        bad.reportValidity()
        return
    }
    generation++
    working(true)
    try {
        if (finished.base !== key) await trainBase(s)
        await trainMethods(s)
        status('Done. Take a group apart below, or run the same in your terminal.', 1)
        offerReport()
    } catch (error) {
        status('It ended with an error: ' + error.message)
    }
    working(false)
}

function working(yes) {
    get('start').disabled = yes
    get('stop').disabled = !yes
    get('download').disabled = yes || !disk.size
    for (const id of ['base-steps', 'rl-steps', 'seed']) get(id).disabled = yes
}

// Ends every worker at once, as a power cut would; what was written stays.
function stop() {
    generation++
    for (const worker of running) worker.terminate()
    running.clear()
    sampling = explaining = false
    status(finished.base ? 'Stopped. Start goes on from the model of part 1.'
        : 'Stopped. Start begins anew.')
    working(false)
    drawAll()
}

// ---------------------------------------------------------------- one group

let groups = [] // of the first step: {prompt, tries: [{response, reward, reason}]}
let chosen = 0, rewards = []

// The groups that the base model sampled in G2RL's first step.
function showGroups() {
    const all = rows['runs/g2rl/rollouts.jsonl'] || []
    if (groups.length || all.length < 16 * GROUP) return
    for (let i = 0; i < 16 * GROUP; i += GROUP)
        groups.push({prompt: all[i].prompt, tries: all.slice(i, i + GROUP)})
    const several = group => new Set(group.tries.filter(one => one.reward > 0)
        .map(one => one.response)).size > 1 && group.tries.some(one => one.reward < 0)
    get('group').hidden = false
    get('group-wait').hidden = true
    choose(Math.max(0, groups.findIndex(several)))
}

function choose(i) {
    chosen = (i + groups.length) % groups.length
    rewards = groups[chosen].tries.map(one => one.reward)
    explain()
}

// Runs `explain` on the group, twice: for the numbers and for the sentences. While it runs, a new
// wish is noted, not begun.
let explaining = false, again = false
async function explain() {
    again = explaining
    if (explaining) return
    explaining = true
    const {prompt, tries} = groups[chosen]
    putText('group.jsonl', JSON.stringify({prompt, responses: tries.map(one => one.response),
        rewards}) + '\n')
    const words = ['explain', '--model', 'runs/base', '--data', 'group.jsonl', '--lambda',
        get('lambda').value, '--shaping', get('shaping').value, '--dead-groups',
        get('dead-groups').value]
    try {
        const see = ['runs/base/', 'group.jsonl']
        const [numbers, text] = await Promise.all([run([...words, '--json'], see), run(words, see)])
        showGroup(groups[chosen], JSON.parse(numbers), text)
    } catch (error) {
        get('whole').textContent = error.message
    }
    explaining = false
    if (again) explain()
}

function showGroup({prompt, tries}, x, text) {
    get('which').textContent = `group ${chosen + 1} of ${groups.length}`
    get('lambda-value').textContent = get('lambda').value
    const widest = Math.max(2, ...x.A.map(Math.abs))
    const focused = document.activeElement && document.activeElement.id
    get('tries').tBodies[0].replaceChildren(...tries.map((one, i) => {
        const isRight = rewards[i] > 0, share = Math.abs(x.A[i]) / widest * 50
        const button = make('button', {id: `reward-${i}`, class: isRight ? 'right' : 'wrong',
            'aria-label': `try ${i}: reward ${isRight ? 'plus' : 'minus'} 1; change it`},
        isRight ? '+1' : '\u22121')
        button.onclick = () => {
            rewards[i] = -rewards[i]
            explain()
        }
        const why = rewards[i] === one.reward ? one.reason : 'changed by you'
        return make('tr', {}, make('td', {}, String(i)),
            make('td', {}, drawMaze(prompt, one.response, isRight), make('span', {},
                make('code', {}, one.response), make('br'), make('span', {class: 'note'}, why))),
            make('td', {}, button), make('td', {}, fixed(x.nu[i], 2)),
            make('td', {}, signed(x.rtilde[i], 2)),
            make('td', {}, make('span', {class: 'bar', 'aria-hidden': 'true'},
                make('i', {class: x.A[i] > 0 ? 'up' : 'down',
                    style: `left: ${x.A[i] > 0 ? 50 : 50 - share}%; width: ${share}%`})),
            ' ' + signed(x.A[i], 2)))
    }))
    if (focused && focused.startsWith('reward-')) get(focused).focus()
    const names = tries.map((one, i) => make('th', {scope: 'col'}, String(i)))
    get('heat').replaceChildren(get('heat').caption, make('tr', {}, make('th'), ...names),
        ...x.S.map((line, i) => make('tr', {}, make('th', {scope: 'row'}, String(i)),
            ...line.map(cosine => make('td', {style: `background: rgb(var(--${cosine > 0 ? 'plus'
                : 'minus'}) / ${(Math.abs(cosine) * .7).toFixed(2)})`}, fixed(cosine, 1))))))
    const block = text.split('\n\n')[3].split('\n'), first = block.findIndex(l => /^0: /.test(l))
    const sentences = []
    for (const line of block.slice(first))
        if (/^\d+: /.test(line)) sentences.push(line.replace(/^\d+: /, ''))
        else sentences[sentences.length - 1] += ' ' + line.trim()
    get('whole').textContent = block.slice(0, first).join(' ')
    get('sentences').replaceChildren(...sentences.map(one => make('li', {}, one)))
}

// ---------------------------------------------------------------- to take home

function offerReport() {
    const link = get('report')
    if (link.href) URL.revokeObjectURL(link.href)
    link.href = URL.createObjectURL(new Blob([fileBytes('runs/report.html')], {type: 'text/html'}))
    link.hidden = false
}

// A tar archive (ustar) of the files below runs/.
function archive() {
    const parts = []
    for (const path of [...disk.keys()].filter(path => path.startsWith('runs/')).sort()) {
        const bytes = fileBytes(path), head = new Uint8Array(512)
        const put = (at, text) => head.set(new TextEncoder().encode(text), at)
        const octal = (n, digits) => n.toString(8).padStart(digits, '0') + '\0'
        put(0, path)
        put(100, octal(0o644, 7) + octal(0, 7) + octal(0, 7))
        put(124, octal(bytes.length, 11) + octal(0, 11))
        put(148, '        0')
        put(257, 'ustar\0' + '00')
        put(148, octal(head.reduce((sum, byte) => sum + byte, 0), 6) + ' ')
        parts.push(head, bytes, new Uint8Array((512 - bytes.length % 512) % 512))
    }
    return new Blob([...parts, new Uint8Array(1024)], {type: 'application/x-tar'})
}

function download() {
    const link = make('a', {href: URL.createObjectURL(archive()), download: 'g2rl-runs.tar'})
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 60000)
}

// ---------------------------------------------------------------- beginning

function changeAll(to) {
    rewards = rewards.map((reward, i) => to || groups[chosen].tries[i].reward)
    explain()
}

get('start').onclick = start
get('stop').onclick = stop
get('download').onclick = download
get('previous').onclick = () => choose(chosen - 1)
get('next').onclick = () => choose(chosen + 1)
get('all-right').onclick = () => changeAll(1)
get('all-wrong').onclick = () => changeAll(-1)
get('reset').onclick = () => changeAll(0)
for (const id of ['lambda', 'shaping', 'dead-groups']) get(id).oninput = explain
for (const id of ['base-steps', 'rl-steps', 'seed']) get(id).oninput = redraw

get('start').disabled = true
drawAll()
document.addEventListener('DOMContentLoaded', () => load().then(() => { // the modules come last
    drawAll()
    get('start').disabled = false
}, error => status('Sorry: ' + error.message)))
