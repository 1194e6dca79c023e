'use strict';
/**
 * The Runtime API client: HTTP/1.1 over one kept-alive connection.
 *
 * Node's `http` takes longer to load and to make a request than a short handler runs. Only what the Runtime API sends is
 * understood: responses with a `Content-Length`, or none and no body. The connection keeps the process alive only while
 * it waits for an invocation, so that the event loop is empty when the handler has nothing left to do.
 */

const net = require('node:net');
const errors = require('./errors.cjs');

const API = '/2018-06-01/runtime';
const MOST_HEAD_BYTES = 1024 * 1024;
const MOST_XRAY_CHARACTERS = 32 * 1024;
const NEWLINES = Buffer.from('\r\n\r\n');
const NOTHING = Buffer.alloc(0);

/** One connection; one request at a time. */
class Connection {
    #address;
    #socket;
    #received = NOTHING;
    #reply; // { resolve, reject, head?, chunks, missing }

    constructor(host, port) {
        this.#address = { host, port, noDelay: true };
    }

    get busy() {
        return this.#reply !== undefined;
    }

    /** Sends a request; once more if a kept connection turned out to be closed. */
    async request(head, body = '') {
        const reused = this.#socket !== undefined;
        try {
            return await this.#exchange(head, body);
        } catch (error) {
            if (!reused) {
                throw error;
            }
            return await this.#exchange(head, body);
        }
    }

    #exchange(head, body) {
        const reply = this.open(head);
        if (body.length > 0) {
            this.#socket.write(body);
        }
        this.#socket.uncork();
        return reply;
    }

    /** Starts a request whose body is written to `write`; the caller uncorks. Resolves with the reply. */
    open(head) {
        if (this.#socket === undefined) {
            this.#connect();
        }
        const socket = this.#socket;
        socket.ref();
        socket.cork();
        socket.write(head, 'utf8');
        return new Promise((resolve, reject) => {
            this.#reply = { resolve, reject, head: undefined, chunks: [], missing: 0 };
        });
    }

    /** Writes a part of a body that `open` began, in one system call. */
    write(parts, done) {
        const socket = this.#socket;
        if (socket === undefined) {
            process.nextTick(done, new errors.PlatformError('The connection to the Runtime API is closed'));
            return;
        }
        socket.cork();
        const last = parts.pop();
        parts.forEach((part) => socket.write(part));
        socket.write(last, done);
        socket.uncork();
    }

    uncork() {
        this.#socket?.uncork();
    }

    close() {
        this.#socket?.destroy();
    }

    #connect() {
        const socket = net.connect(this.#address);
        socket.on('data', (data) => this.#take(data));
        socket.on('error', (error) => this.#lost(socket, error));
        socket.on('close', () => this.#lost(socket, new errors.PlatformError('The Runtime API closed the connection')));
        this.#socket = socket;
        this.#received = NOTHING;
    }

    #lost(socket, error) {
        if (this.#socket !== socket) {
            return;
        }
        this.#socket = undefined;
        const reply = this.#reply;
        this.#reply = undefined;
        reply?.reject(error);
    }

    #take(data) {
        const reply = this.#reply;
        if (reply === undefined) {
            this.#socket.destroy(); // nothing was asked: not a server to go on talking to
            return;
        }
        if (reply.head === undefined) {
            const all = this.#received.length > 0 ? Buffer.concat([this.#received, data]) : data;
            const end = all.indexOf(NEWLINES);
            if (end < 0) {
                this.#received = all;
                if (all.length > MOST_HEAD_BYTES) {
                    this.#socket.destroy(new errors.PlatformError('The Runtime API answered without end'));
                }
                return;
            }
            this.#received = NOTHING;
            reply.head = parseHead(all.toString('utf8', 0, end));
            reply.missing = Number(reply.head.headers['content-length'] || 0);
            data = all.subarray(end + NEWLINES.length);
        }
        reply.chunks.push(data);
        reply.missing -= data.length;
        if (reply.missing <= 0) {
            this.#reply = undefined;
            this.#socket.unref();
            const body = reply.chunks.length === 1 ? reply.chunks[0] : Buffer.concat(reply.chunks);
            reply.resolve({ ...reply.head, body });
        }
    }
}

function parseHead(text) {
    const lines = text.split('\r\n');
    const headers = {};
    for (let i = 1; i < lines.length; i += 1) {
        const colon = lines[i].indexOf(':');
        headers[lines[i].slice(0, colon).toLowerCase()] = lines[i].slice(colon + 1).trim();
    }
    return { status: Number(lines[0].split(' ', 2)[1]), headers };
}

/** Speaks to the Runtime API at `address` (`host:port`). */
class Client {
    #host;
    #port;
    #common;
    #connection;

    constructor(address) {
        const colon = String(address).lastIndexOf(':');
        if (colon < 1) {
            throw new errors.PlatformError(`AWS_LAMBDA_RUNTIME_API is not host:port: ${address}`);
        }
        this.#host = address.slice(0, colon);
        this.#port = Number(address.slice(colon + 1));
        this.#common = `Host: ${address}\r\nUser-Agent: lambent-node\r\n`;
        this.#connection = new Connection(this.#host, this.#port);
    }

    /** Waits, as long as it takes, for the next invocation. */
    async next() {
        const reply = await this.#connection.request(`GET ${API}/invocation/next HTTP/1.1\r\n${this.#common}\r\n`);
        if (reply.status !== 200) {
            throw new errors.PlatformError(`next invocation: status ${reply.status}: ${reply.body}`);
        }
        return reply;
    }

    /** Answers an invocation with JSON. That an answer is too large is the platform's to say, so 413 is no error here. */
    respond(id, json) {
        return this.#post(`/invocation/${id}/response`, 'Content-Type: application/json\r\n', json);
    }

    /** Ends an invocation with an error document. */
    fail(id, error) {
        const document = errors.document(error);
        let headers = errorHeaders(document);
        const cause = errors.xray(error);
        if (cause.length > 0 && cause.length <= MOST_XRAY_CHARACTERS) {
            headers += `Lambda-Runtime-Function-Xray-Error-Cause: ${cause}\r\n`;
        }
        return this.#post(`/invocation/${id}/error`, headers, JSON.stringify(document));
    }

    /** Reports that there is no handler to call. */
    failInit(error) {
        const document = errors.document(error);
        return this.#post('/init/error', errorHeaders(document), JSON.stringify(document));
    }

    /** Begins a streamed answer. Returns the connection to write it to, and the promise of the reply. */
    stream(id, headers) {
        const head = `POST ${API}/invocation/${id}/response HTTP/1.1\r\n${this.#common}${headers}\r\n`;
        const reply = this.#connection.open(head);
        this.#connection.uncork();
        return { connection: this.#connection, reply };
    }

    async #post(path, headers, body) {
        const bytes = Buffer.from(body, 'utf8');
        const head = `POST ${API}${path} HTTP/1.1\r\n${this.#common}${headers}Content-Length: ${bytes.length}\r\n\r\n`;
        // An error can come up while the connection is taken by something else.
        const connection = this.#connection.busy ? new Connection(this.#host, this.#port) : this.#connection;
        const reply = await connection.request(head, bytes);
        if (reply.status !== 202 && reply.status !== 413) {
            throw new errors.PlatformError(`${path}: status ${reply.status}: ${reply.body}`);
        }
    }
}

function errorHeaders(document) {
    const type = errors.headerText(String(document.errorType));
    return `Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: ${type}\r\n`;
}

module.exports = { Client };
