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

// Node's own modules that AWS's SDK and most clients load; they take longer to load than a handler to run.
const PRELOADED = ['http', 'https', 'crypto', 'url', 'zlib', 'stream', 'util', 'dns', 'tls', 'os', 'timers/promises'];
// Descriptors of this process that stay its own whatever the order says.
const OWN = ['_LAMBDA_TELEMETRY_LOG_FD'];

/** Waits for the order, without an event loop: nothing else happens meanwhile. */
function takeOrder() {
    const descriptor = Number(process.env._LAMBENT_ORDER_FD);
    PRELOADED.forEach((name) => require(`node:${name}`));
    const text = fs.readFileSync(descriptor, 'utf8');
    fs.closeSync(descriptor);
    if (text === '') {
        process.exit(0);
    }
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
