// A Runtime API just large enough to drive the runtime in tests.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const BOOTSTRAP = fileURLToPath(new URL('../bootstrap.cjs', import.meta.url));

/** Whether runtimes are started before they are told what to serve. */
const waits = process.env.LAMBENT_TEST_WAITS === '1';

/** Items that are pushed and, now or later, taken. */
class Queue {
    #items = [];
    #takers = [];

    push(item) {
        const taker = this.#takers.shift();
        if (taker) {
            taker(item);
        } else {
            this.#items.push(item);
        }
    }

    take() {
        return this.#items.length > 0
            ? Promise.resolve(this.#items.shift())
            : new Promise((resolve) => this.#takers.push(resolve));
    }
}

/**
 * Runs `files` under the runtime; `body` gets `invoke`, `outcome` and `output`. `answer(request, response)` may answer
 * in the server's place and then returns true.
 */
export async function runtime({ files, handler = 'app.handler', environment = {}, answer = () => false }, body) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'runtime-'));
    for (const [name, text] of Object.entries(files)) {
        fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
        fs.writeFileSync(path.join(folder, name), text);
    }
    const events = new Queue();
    const outcomes = new Queue();
    const server = http.createServer(async (request, response) => {
        if (answer(request, response)) {
            return;
        }
        if (request.method === 'GET') {
            const { headers, payload } = await events.take();
            response.writeHead(200, { ...headers, 'Content-Length': Buffer.byteLength(payload) }).end(payload);
            return;
        }
        const chunks = [];
        for await (const chunk of request) {
            chunks.push(chunk);
        }
        const kind = request.url.includes('/init/') ? 'init-error' : path.basename(request.url);
        const { headers, trailers } = request;
        outcomes.push({ kind, headers, trailers, body: Buffer.concat(chunks).toString() });
        response.writeHead(202, { 'Content-Length': 0 }).end();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const env = {
        PATH: process.env.PATH,
        AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${server.address().port}`,
        LAMBDA_TASK_ROOT: folder,
        _HANDLER: handler,
        ...environment,
    };
    const own = { _LAMBDA_TELEMETRY_LOG_FD: '3' };
    const child = spawn(process.execPath, [BOOTSTRAP], {
        cwd: waits ? '/' : folder,
        env: waits ? { ...own, STALE: '1', _LAMBENT_ORDER_FD: '4' } : { ...env, ...own },
        stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
    });
    child.stdio[4].on('error', () => {}).resume(); // a runtime that does not wait never reads it
    child.stdio[4].end(waits ? JSON.stringify({ env, cwd: folder }) : '');
    const exited = once(child, 'close').then(([status]) => status);
    exited.then((status) => outcomes.push({ kind: 'exit', status }));
    const kept = [1, 2, 3].map((stream) => collect(child.stdio[stream]));
    let count = 0;
    const invoke = (event, headers = {}) => {
        count += 1;
        const standard = {
            'Lambda-Runtime-Aws-Request-Id': `request-${count}`,
            'Lambda-Runtime-Deadline-Ms': String(Date.now() + 30000),
            'Content-Type': 'application/json',
        };
        events.push({ headers: { ...standard, ...headers }, payload: JSON.stringify(event) });
        return outcomes.take();
    };
    try {
        await body({ invoke, outcome: () => outcomes.take() });
    } finally {
        child.kill('SIGKILL');
        await exited;
        server.closeAllConnections();
        server.close();
        fs.rmSync(folder, { recursive: true });
    }
    const [stdout, stderr, channel] = kept.map((chunks) => Buffer.concat(chunks));
    return { stdout: stdout.toString(), stderr: stderr.toString(), frames: frames(channel) };
}

function collect(stream) {
    const chunks = [];
    stream.on('data', (chunk) => chunks.push(chunk));
    return chunks;
}

function frames(data) {
    const found = [];
    for (let at = 0; at < data.length; ) {
        const end = at + 16 + data.readUInt32BE(at + 4);
        found.push({ type: data.readUInt32BE(at), text: data.toString('utf8', at + 16, end) });
        at = end;
    }
    return found;
}
