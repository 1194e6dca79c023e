'use strict';
/**
 * What a waiting runtime does once for nobody: the way of a start and of an invocation, with a handler of its own.
 *
 * V8 compiles a function when it is first called, and Node makes its loaders when they are first used; together that takes
 * longer than everything else between an order and the first line of user code. Nothing of it is left behind that a
 * function could see, and what fails here fails for nobody: the start itself will say so.
 */

const net = require('node:net');
const path = require('node:path');
const { format } = require('node:util');
const buffered = require('./buffered.cjs');
const { Client } = require('./client.cjs');
const errors = require('./errors.cjs');
const handlers = require('./handler.cjs');
const idle = require('./idle.cjs');

const HEADERS = { 'lambda-runtime-deadline-ms': '0' };

async function rehearse(legacy) {
    format('%s', 'a', {}, 1);
    errors.document(new Error('rehearsed'));
    new Client('127.0.0.1:9'); // connects when it is first asked
    new net.Socket().destroy();
    const root = path.join(__dirname, '..');
    for (const name of ['lambent/rehearsed.handler', 'lambent/rehearsed-module.handler']) {
        const loaded = await handlers.load(root, name);
        const client = { respond: async () => {}, fail: async () => {} };
        await buffered.serve({ client, loaded, invocation: { headers: HEADERS, body: '{}' }, id: '', legacy });
    }
    idle.forget();
    forget(path.join(__dirname, 'rehearsed.cjs'));
}

/** Takes a module out of what `require` knows. */
function forget(file) {
    const known = require.cache[file];
    delete require.cache[file];
    for (const other of Object.values(require.cache)) {
        other.children = other.children.filter((child) => child !== known);
    }
}

module.exports = { rehearse };
