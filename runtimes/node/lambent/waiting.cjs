'use strict';
/**
 * A runtime that is started before it is known for whom: it loads itself, waits for its order, and goes on as if it had
 * been started with what the order says.
 *
 * The order is one JSON document on a pipe, read to its end: `env`, the whole environment, and `cwd`. No order at all
 * means that nobody wants this process. Only the size of V8's heap cannot be ordered: it is what the memory of the
 * machine, as seen when the process started, makes it.
 */

const fs = require('node:fs');
const Module = require('node:module');
const { rehearse } = require('./rehearsal.cjs');

// Node's own modules that AWS's SDK and most clients load; they take longer to load than a handler to run.
const PRELOADED = [
    'async_hooks',
    'child_process',
    'crypto',
    'dns',
    'http',
    'http2',
    'https',
    'os',
    'perf_hooks',
    'stream',
    'timers/promises',
    'tls',
    'url',
    'util',
    'zlib',
];
// Descriptors of this process that stay its own whatever the order says.
const OWN = ['_LAMBDA_TELEMETRY_LOG_FD'];

/** Waits for the order, without an event loop: nothing else happens meanwhile. */
async function takeOrder(legacy) {
    const descriptor = Number(process.env._LAMBENT_ORDER_FD);
    await prepare(legacy);
    const text = fs.readFileSync(descriptor, 'utf8');
    fs.closeSync(descriptor);
    if (text === '') {
        process.exit(0);
    }
    obey(text);
}

/** Does beforehand what does not depend on the order. */
async function prepare(legacy) {
    PRELOADED.forEach((name) => require(`node:${name}`));
    try {
        obey(JSON.stringify({ env: process.env, cwd: process.cwd() }));
        await rehearse(legacy);
    } catch {
        // The start itself will say so.
    }
}

function obey(text) {
    const { env, cwd } = JSON.parse(text);
    setEnvironment(env);
    process.chdir(cwd);
    Module._initPaths(); // reads NODE_PATH once more
}

function setEnvironment(env) {
    const own = OWN.filter((name) => name in process.env).map((name) => [name, process.env[name]]);
    Object.keys(process.env).forEach((name) => delete process.env[name]);
    Object.assign(process.env, env, Object.fromEntries(own));
}

module.exports = { takeOrder };
