'use strict';
/**
 * `console` as on AWS Lambda: each call one entry with its time, invocation and level, as text or as JSON.
 *
 * With `_LAMBDA_TELEMETRY_LOG_FD` set an entry is one frame on that descriptor, so an entry of forty lines is one event.
 * A frame is, in big-endian order: type (4 bytes; 0xA55A0003 for text or 0xA55A0002 for JSON, plus the level), length of
 * the message (4), microseconds since 1970 (8), the message in UTF-8. Without it entries go to standard output, their
 * newlines turned into carriage returns. What is written to standard output directly goes there as it is.
 */

const fs = require('node:fs');
const { format } = require('node:util');
const errors = require('./errors.cjs');

const TEXT = 0xa55a0003;
const JSON_ = 0xa55a0002;
const HEAD_BYTES = 16;
const LEVELS = { TRACE: 4, DEBUG: 8, INFO: 12, WARN: 16, ERROR: 20, FATAL: 24 };

let asJson = false;
let requestId;
let tenantId;
let write = writeLine;

/** Replaces the methods of `console`. `id` stands for the request while there is none. */
function patchConsole(id) {
    requestId = id;
    asJson = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
    const lowest = LEVELS[process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()] ?? LEVELS.TRACE;
    const descriptor = Number.parseInt(process.env._LAMBDA_TELEMETRY_LOG_FD, 10);
    delete process.env._LAMBDA_TELEMETRY_LOG_FD;
    if (descriptor >= 0) {
        write = (level, now, text) => writeFrame(descriptor, level, now, text);
    }
    for (const level of Object.keys(LEVELS)) {
        const method = level.toLowerCase();
        const shown = LEVELS[level] >= lowest || level === 'FATAL';
        console[method] = shown ? (first, ...more) => log(level, [first, ...more]) : () => {};
    }
    console.log = console.info;
}

/** The invocation that entries belong to from now on. */
function setInvocation(id, tenant) {
    requestId = id;
    tenantId = tenant;
}

/** Logs an error that ends an invocation or the initialisation. */
function error(label, thrown) {
    if (asJson) {
        console.error(errors.asError(thrown));
    } else {
        console.error(label, errors.logged(thrown));
    }
}

function log(level, values) {
    const now = new Date();
    const text = asJson
        ? jsonEntry(now, level, values)
        : `${now.toISOString()}\t${requestId}\t${level}\t${format(...values)}`;
    write(level, now, text);
}

function jsonEntry(now, level, values) {
    const entry = { timestamp: now.toISOString(), level, requestId };
    if (tenantId) {
        entry.tenantId = tenantId;
    }
    if (values.length === 1) {
        entry.message = values[0];
        try {
            return JSON.stringify(entry, (_, value) => (value instanceof Error ? errorFields(value, true) : value));
        } catch {
            entry.message = format(values[0]); // circular, or a BigInt
            return JSON.stringify(entry);
        }
    }
    entry.message = format(...values);
    const first = values.find((value) => value instanceof Error);
    return JSON.stringify(first === undefined ? entry : { ...entry, ...errorFields(first, false) });
}

function errorFields(value, own) {
    return {
        errorType: value.constructor?.name ?? 'UnknownError',
        errorMessage: value.message,
        stackTrace: typeof value.stack === 'string' ? value.stack.split('\n') : [],
        ...(own ? value : {}),
    };
}

function writeLine(_level, _now, text) {
    process.stdout.write(`${text.replaceAll('\n', '\r')}\n`);
}

function writeFrame(descriptor, level, now, text) {
    const message = asJson ? text : `${text}\n`;
    const length = Buffer.byteLength(message);
    const frame = Buffer.allocUnsafe(HEAD_BYTES + length);
    frame.writeUInt32BE((asJson ? JSON_ : TEXT) + LEVELS[level], 0);
    frame.writeUInt32BE(length, 4);
    frame.writeBigUInt64BE(BigInt(now.getTime()) * 1000n, 8);
    frame.write(message, HEAD_BYTES);
    for (let sent = 0; sent < frame.length; ) {
        sent += fs.writeSync(descriptor, frame, sent);
    }
}

module.exports = { error, patchConsole, setInvocation };
