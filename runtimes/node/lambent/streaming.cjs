'use strict';
/**
 * One invocation whose answer is a stream: `awslambda.streamifyResponse(async (event, stream, context) => ...)`.
 *
 * The answer is a chunked request. An error that comes up when part of it is sent already cannot be taken back: it
 * follows in the trailers.
 */

const { Writable } = require('node:stream');
const context = require('./context.cjs');
const errors = require('./errors.cjs');
const { HIGH_WATER_MARK, STREAMING } = require('./handler.cjs');
const idle = require('./idle.cjs');
const logs = require('./logs.cjs');

const HTTP_INTEGRATION = 'application/vnd.awslambda.http-integration-response';
const PRELUDE_END = Buffer.alloc(8);

/** What a streaming handler writes its answer to. */
class ResponseStream extends Writable {
    #client;
    #id;
    #contentType = 'application/octet-stream';
    #prelude = [];
    #open; // { connection, reply } once something is sent
    #written = false;
    #ended = false;

    constructor(client, id, highWaterMark) {
        super({ highWaterMark, decodeStrings: true });
        this.#client = client;
        this.#id = id;
    }

    setContentType(contentType) {
        if (this.#written) {
            throw new errors.InvalidStreamingOperation('Cannot set content-type, too late.');
        }
        this.#contentType = contentType;
    }

    /** What is sent before anything else; set by `HttpResponseStream.from`. */
    set _onBeforeFirstWrite(listener) {
        this.#prelude = [];
        listener((part) => this.#prelude.push(Buffer.from(part)));
    }

    write(chunk, ...rest) {
        const isBytes = typeof chunk === 'string' || chunk instanceof Uint8Array;
        this.#written = true;
        return super.write(isBytes ? chunk : JSON.stringify(chunk), ...rest);
    }

    _write(chunk, _encoding, done) {
        this.#send([chunk], done);
    }

    _writev(entries, done) {
        const chunks = entries.map((entry) => entry.chunk);
        this.#send(chunks, done);
    }

    _final(done) {
        this.#finish('', done);
    }

    _destroy(error, done) {
        if (!this.#ended) {
            this.#open?.connection.close(); // half an answer: the platform sees that its end is missing
        }
        done(error);
    }

    /** Ends the answer with an error in its trailers. */
    async fail(error) {
        const document = errors.document(error);
        const body = Buffer.from(JSON.stringify(document)).toString('base64');
        const trailers =
            `Lambda-Runtime-Function-Error-Type: ${errors.headerText(String(document.errorType))}\r\n` +
            `Lambda-Runtime-Function-Error-Body: ${body}\r\n`;
        if (this.destroyed && !this.#ended) {
            return; // the connection is closed: the platform saw as much
        }
        if (!this.#ended) {
            await new Promise((resolve) => this.#finish(trailers, resolve));
        }
        await this.answered();
    }

    /** Resolves when the platform has taken the whole answer. */
    async answered() {
        await this.#open?.reply;
    }

    #send(chunks, done) {
        const parts = [];
        for (const chunk of [...this.#start(), ...chunks]) {
            if (chunk.length > 0) {
                // an empty chunk would end the body
                parts.push(`${chunk.length.toString(16)}\r\n`, chunk, '\r\n');
            }
        }
        if (parts.length > 0) {
            this.#open.connection.write(parts, done);
        } else {
            done();
        }
    }

    #finish(trailers, done) {
        this.#ended = true;
        const prelude = this.#start();
        const end = () => this.#open.connection.write([`0\r\n${trailers}\r\n`], done);
        if (prelude.length > 0) {
            this.#send(prelude, end);
        } else {
            end();
        }
    }

    /** Sends the head, the first time; returns what has to come before the first chunk. */
    #start() {
        if (this.#open !== undefined) {
            return [];
        }
        this.#open = this.#client.stream(
            this.#id,
            'Lambda-Runtime-Function-Response-Mode: streaming\r\n' +
                `Content-Type: ${errors.headerText(String(this.#contentType))}\r\n` +
                'Transfer-Encoding: chunked\r\n' +
                'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n',
        );
        // A platform that hangs up is seen by the next write; nobody may be awaiting the reply yet.
        this.#open.reply.catch((error) => this.destroy(error));
        const prelude = this.#prelude;
        this.#prelude = [];
        return prelude;
    }
}

/** Calls the handler with a stream, and waits until the platform has all of it. */
async function serve({ client, loaded, invocation, id, legacy, current }) {
    const stream = new ResponseStream(client, id, loaded.highWaterMark);
    stream.on('error', () => {}); // the handler may listen; without a listener the process would end
    current.fail = (error) => stream.fail(error);
    let waits = true;
    const offered = legacy
        ? {
              get callbackWaitsForEmptyEventLoop() {
                  return waits;
              },
              set callbackWaitsForEmptyEventLoop(value) {
                  waits = value;
              },
          }
        : { xRayTraceId: invocation.headers['lambda-runtime-trace-id'] };
    try {
        const running = run(loaded, invocation, stream, context.fill(offered, invocation.headers));
        await (legacy ? Promise.race([running, whenIdle('Response stream is not finished.')]) : running);
    } catch (error) {
        logs.error('Invoke Error', error);
        await stream.fail(error);
    }
    if (legacy && waits) {
        await new Promise((resolve) => idle.set(() => setImmediate(resolve)));
        idle.reset();
    }
}

/** Rejects when nothing is left that could still end the stream. */
function whenIdle(message) {
    return new Promise((_, reject) => idle.set(() => reject(new Error(message))));
}

async function run(loaded, { body }, stream, offered) {
    const result = loaded.handler(JSON.parse(body), stream, offered);
    if (typeof result?.then !== 'function') {
        throw new Error('Streaming does not support non-async handlers.');
    }
    if ((await result) !== undefined) {
        console.warn('Streaming handlers ignore return values.');
    }
    await finished(stream);
}

async function finished(stream) {
    if (!stream.writableFinished && !stream.destroyed) {
        await new Promise((resolve) => stream.once('close', resolve));
    }
    if (!stream.writableFinished) {
        throw stream.errored ?? new Error('Response stream is not finished.');
    }
    await stream.answered();
}

/** `awslambda.HttpResponseStream`. */
class HttpResponseStream {
    /** Makes `stream` the body of an HTTP response whose status, headers and cookies are in `metadata`. */
    static from(stream, metadata) {
        stream.setContentType(HTTP_INTEGRATION);
        stream._onBeforeFirstWrite = (write) => {
            write(JSON.stringify(metadata));
            write(PRELUDE_END);
        };
        return stream;
    }
}

/** Marks a handler as streaming. */
function streamifyResponse(handler, options) {
    handler[STREAMING] = 'response';
    if (typeof options?.highWaterMark === 'number') {
        handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
    }
    return handler;
}

/** Puts the above where handlers expect it, unless asked not to. */
function setGlobals(more) {
    if (!['1', 'true'].includes(process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) {
        globalThis.awslambda = { ...globalThis.awslambda, ...more, streamifyResponse, HttpResponseStream };
    }
}

module.exports = { serve, setGlobals };
