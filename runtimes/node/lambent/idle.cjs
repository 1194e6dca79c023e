'use strict';
/**
 * What to do when the event loop has nothing left.
 *
 * Up to Node.js 22 an invocation ends in one of several ways: a promise settles, a callback is called, or the handler has
 * simply nothing left to do. The last is seen as `beforeExit`. The listener is where AWS has it, since libraries that
 * wait for an empty event loop themselves look for it there.
 */

const LISTENER = Symbol.for('aws.lambda.beforeExit');

function set(listener) {
    globalThis[LISTENER] = listener;
}

function reset() {
    set(() => {});
}

/** As if nobody had ever set any. */
function forget() {
    delete globalThis[LISTENER];
}

function listen() {
    reset();
    process.on('beforeExit', () => globalThis[LISTENER]());
}

module.exports = { forget, listen, reset, set };
