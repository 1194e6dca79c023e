'use strict';
/** One invocation whose answer is a value. */

const context = require('./context.cjs');
const errors = require('./errors.cjs');
const idle = require('./idle.cjs');
const logs = require('./logs.cjs');

/** Calls the handler and sends what comes of it. */
async function serve({ client, loaded, invocation, id, legacy }) {
    const outcome = await (legacy ? callLegacy : call)(loaded, invocation);
    if (outcome.failed) {
        logs.error('Invoke Error', outcome.value);
        await client.fail(id, outcome.value);
    } else {
        await client.respond(id, outcome.value);
    }
}

/** From Node.js 24 on: the handler's value, or what its promise settles to, is the answer. */
async function call(loaded, { headers, body }) {
    try {
        return answer(await loaded.handler(JSON.parse(body), context.fill({ xRayTraceId: headers['lambda-runtime-trace-id'] }, headers)), errors.JSONStringifyError);
    } catch (error) {
        return { failed: true, value: error };
    }
}

/**
 * Up to Node.js 22: whichever comes first of a promise that settles, the callback, `context.done`, `succeed` or `fail`.
 * The callback's answer waits until the event loop is empty unless the handler said otherwise; an empty event loop
 * without any of them is the answer null.
 */
function callLegacy(loaded, { headers, body }) {
    return new Promise((resolve) => {
        let waits = true;
        const finish = (outcome) => {
            idle.reset();
            resolve(outcome);
        };
        const fail = (error) => finish({ failed: true, value: error ?? 'handled' });
        const succeed = (value) => {
            try {
                finish(answer(value, Error));
            } catch (error) {
                fail(error);
            }
        };
        const done = (error, value) => (isGiven(error) ? fail(error) : succeed(value));
        let called = false;
        const callback = (error, value) => {
            if (called) {
                return;
            }
            called = true;
            if (isGiven(error) || !waits) {
                done(error, value);
            } else {
                idle.set(() => succeed(value));
            }
        };
        const offered = {
            get callbackWaitsForEmptyEventLoop() {
                return waits;
            },
            set callbackWaitsForEmptyEventLoop(value) {
                waits = value;
            },
            succeed,
            fail,
            done,
        };
        idle.set(() => finish({ failed: false, value: 'null' }));
        try {
            const result = loaded.handler(JSON.parse(body), context.fill(offered, headers), callback);
            if (typeof result?.then === 'function') {
                result.then(succeed, fail);
            }
        } catch (error) {
            fail(error);
        }
    });
}

function isGiven(error) {
    return error !== undefined && error !== null;
}

function answer(value, Failure) {
    let json;
    try {
        json = JSON.stringify(value === undefined ? null : value);
    } catch {
        // circular, or a BigInt
    }
    if (json === undefined) {
        throw new Failure('Unable to stringify response body');
    }
    return { failed: false, value: json };
}

module.exports = { serve };
