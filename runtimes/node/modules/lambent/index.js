'use strict';
// What code tells the node that runs it. Calls to other functions that run while this one goes on:
//
//     const call = await lambent.start('other', { n: 1 });
//     ...
//     const answer = await call.result();
//
// While code waits here its place in the account's concurrency is free for others. Whoever waits and says `blocked: true`
// promises that nothing else goes on, in workers and the thread pool neither, which cannot be seen from here: then the
// container may be frozen meanwhile. `docs/calls.md` has the rules.
//
// And what its answer depends on, which it reads after that:
//
//     await lambent.dependsOn('https://example.com/prices', lambent.rows('shop', 'SELECT rate FROM rates WHERE currency = ?', 'EUR'));
//
// `docs/executions.md` has the rules of dependencies.

const http = require('node:http');
const path = require('node:path');

const PATH = '/lambent/2026-11-24/calls';
const DEPENDENCIES = '/lambent/2026-11-24/dependencies';
const SITE_CHARS = 256;

/** A call, or a request about it, was refused: `code` is the error's name, `status` the HTTP status. */
class CallError extends Error {
    constructor(code, message, status) {
        super(`${code}: ${message}`);
        this.name = 'CallError';
        this.code = code;
        this.status = status;
    }
}

/** The called function failed; `document` is what it said. */
class FunctionError extends Error {
    constructor(document) {
        super(`${document?.errorType}: ${document?.errorMessage}`);
        this.name = 'FunctionError';
        this.document = document;
        this.errorType = document?.errorType;
    }
}

/** The answer did not come within the time given. */
class NotDone extends Error {
    constructor(id) {
        super(`call ${id} is not done`);
        this.name = 'NotDone';
    }
}

/** A call under way. `id` is also the request id that the called function sees. */
class Call {
    #outcome;

    constructor(id) {
        this.id = id;
    }

    /** Whether the answer is here already. */
    get fetched() {
        return this.#outcome !== undefined;
    }

    /**
     * Waits for the answer, at most `timeout` milliseconds; it can be asked for again. `blocked`: nothing else goes on
     * until it is there.
     */
    result({ timeout, blocked } = {}) {
        if (this.#outcome === undefined) {
            const taken = this.#take(timeout, blocked);
            this.#outcome = taken;
            // What was not there yet can be waited for again.
            taken.catch((error) => {
                if (error instanceof NotDone) {
                    this.#outcome = undefined;
                }
            });
        }
        return this.#outcome;
    }

    /** Lets go of the call: if it runs it runs on, and nobody gets its answer. */
    async forget() {
        if (!this.fetched) {
            checked(await request('DELETE', `${PATH}/${this.id}`));
        }
    }

    async #take(timeout, blocked) {
        const answer = await request('GET', `${PATH}/${this.id}?${how(timeout, blocked)}`);
        if (answer.status === 202) {
            throw new NotDone(this.id);
        }
        const document = JSON.parse(checked(answer).toString() || 'null');
        if (answer.headers['x-amz-function-error'] !== undefined) {
            throw new FunctionError(document);
        }
        return document;
    }
}

/**
 * Starts a call of `name` (name, partial or whole ARN). `deadlineMs` says when its result is needed; what was not started
 * by then is not started at all. Without it, that is learned from when the results of earlier calls from the same `site`
 * were asked for: the place in the code, the caller's file and line unless given.
 */
async function start(name, payload = null, options = {}) {
    const { qualifier, deadlineMs, idempotencyKey, affinity, site = caller() } = options;
    const query = new URLSearchParams({ function: name });
    if (qualifier !== undefined) {
        query.set('qualifier', qualifier);
    }
    const given = {
        // A file may have any name; a header's text would have to be Latin-1.
        'X-Lambent-Site': site === undefined ? undefined : Buffer.from(site).toString('latin1'),
        'X-Lambent-Deadline-Ms': deadlineMs,
        'X-Lambent-Idempotency-Key': idempotencyKey,
        'X-Lambent-Affinity': affinity,
    };
    const headers = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
    // As text it would be joined with the headers and take their encoding along.
    const body = Buffer.from(JSON.stringify(payload) ?? 'null');
    const answer = await request('POST', `${PATH}?${query}`, body, headers);
    return new Call(JSON.parse(checked(answer).toString()).id);
}

/** Waits until one of `calls` is done, at most `timeout` milliseconds; gives those that are. `blocked` as in `result`. */
const waitAny = (calls, options) => wait(calls, 'any', options);

/** Waits until all of `calls` are done, at most `timeout` milliseconds; gives those that are. `blocked` as in `result`. */
const waitAll = (calls, options) => wait(calls, 'all', options);

/**
 * Says what the answer depends on, in the words of `lambent executions configure --on`; read it after this is done. Gives
 * false where this invocation's dependencies are not kept, and nothing was done. What cannot be looked at is no error: the
 * function runs again next time. `CallError`: a name is none, or there are too many.
 */
async function dependsOn(...names) {
    return JSON.parse(checked(await request('POST', DEPENDENCIES, JSON.stringify(names))).toString()).recorded;
}

/** The name of the rows that `query` gives at an auxiliary service, each `?` in it being one of `values`. */
function rows(service, query, ...values) {
    const [first, ...rest] = query.split('?');
    if (rest.length !== values.length) {
        throw new TypeError(`the query has ${rest.length} places, and ${values.length} values are given`);
    }
    return `rows:${service}/${first}${rest.map((text, at) => `{${JSON.stringify(values[at])}}${text}`).join('')}`;
}

async function wait(calls, mode, { timeout, blocked } = {}) {
    const left = calls.filter((call) => !call.fetched);
    const here = calls.filter((call) => call.fetched);
    if (left.length === 0 || (mode === 'any' && here.length > 0)) {
        return here;
    }
    const query = how(timeout, blocked);
    query.set('mode', mode);
    const ids = left.map((call) => call.id).join(',');
    const answer = await request('GET', `${PATH}?ids=${ids}&${query}`);
    const done = new Set(JSON.parse(checked(answer).toString()).done);
    return calls.filter((call) => here.includes(call) || done.has(call.id));
}

/** How to wait, as a query. */
function how(timeout, blocked) {
    const query = new URLSearchParams();
    if (timeout !== undefined) {
        query.set('within_ms', Math.trunc(timeout));
    }
    if (blocked) {
        query.set('blocked', true);
    }
    return query;
}

/** File and line of the code that called this module. */
function caller() {
    const lines = (new Error().stack ?? '').split('\n').slice(1);
    const found = lines.find((line) => !line.includes(__filename))?.match(/([^/\s(]+:\d+):\d+\)?$/);
    return found ? path.basename(found[1]).slice(-SITE_CHARS) : undefined;
}

function request(method, target, body, headers = {}) {
    const [hostname, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
    return new Promise((resolve, reject) => {
        const sent = http.request({ hostname, port, method, path: target, headers, agent: false }, (response) => {
            const pieces = [];
            response.on('data', (piece) => pieces.push(piece));
            response.on('error', reject);
            response.on('end', () => {
                resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) });
            });
        });
        sent.on('error', reject);
        sent.end(body);
    });
}

function checked({ status, headers, body }) {
    if (status < 400) {
        return body;
    }
    let document = {};
    try {
        document = JSON.parse(body.toString());
    } catch {
        // The status says enough.
    }
    const message = document.message ?? document.Message ?? document.errorMessage ?? '';
    throw new CallError(headers['x-amzn-errortype'] ?? document.errorType, message, status);
}

module.exports = { Call, CallError, FunctionError, NotDone, dependsOn, rows, start, waitAll, waitAny };
