'use strict';
/** Errors as the Runtime API and the logs show them. */

const { types } = require('node:util');

/** Defines an error of the runtime's own; its name is what the caller sees as `errorType`. */
function runtimeError(name) {
    return class extends Error {
        constructor(message) {
            super(message);
            this.name = `Runtime.${name}`;
        }
    };
}

class UserCodeSyntaxError extends runtimeError('UserCodeSyntaxError') {
    constructor(cause) {
        super(String(cause));
        this.stack = cause.stack; // it shows the line at fault
    }
}

class UnhandledPromiseRejection extends runtimeError('UnhandledPromiseRejection') {
    constructor(reason, promise) {
        super(String(reason));
        this.reason = reason;
        this.promise = promise;
    }
}

/** The error document. */
function document(error) {
    try {
        if (isError(error)) {
            return {
                errorType: escaped(error.name),
                errorMessage: escaped(error.message),
                trace: (escaped(error.stack) || '').split('\n'),
            };
        }
        return { errorType: typeof error, errorMessage: String(error), trace: [] };
    } catch {
        // Getters of the user's may throw, and `String` of an object without a prototype does. AWS's words.
        return {
            errorType: 'handled',
            errorMessage:
                'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
            trace: [],
        };
    }
}

/** The cause for X-Ray, as one header line; empty if there is none. */
function xray(error) {
    try {
        const stack = (error.stack || '').split('\n').slice(1).map(frame);
        const cause = {
            working_directory: process.cwd(),
            exceptions: [{ type: error.name, message: error.message, stack }],
            paths: [...new Set(stack.map((entry) => entry.path))],
        };
        return JSON.stringify(cause).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
    } catch {
        return '';
    }
}

/** `at label (path:line:column)`, or without label and brackets, taken apart. */
function frame(line) {
    const text = line.trim().replace(/[()]/g, '').replace(/^at /, '');
    const space = text.lastIndexOf(' ');
    const [path, row] = text.slice(space + 1).split(':');
    return { path, line: Number.parseInt(row, 10), label: space < 0 ? 'anonymous' : text.slice(0, space) };
}

/** The error with everything on it, for the text log. */
function logged(error) {
    try {
        return `\t${JSON.stringify(asError(error), (_, value) => withOwn(value))}`;
    } catch {
        return `\t${JSON.stringify(document(error))}`;
    }
}

function withOwn(value) {
    if (!(value instanceof Error)) {
        return value;
    }
    const shown = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
    if (typeof value.stack === 'string') {
        shown.stack = value.stack.split('\n');
    }
    return shown;
}

/** What was thrown, as an error. */
function asError(value) {
    return value instanceof Error ? value : new Error(String(value));
}

/** Errors of other realms (`vm` contexts) count too, and what merely looks like one. */
function isError(value) {
    const text = (name) => typeof value[name] === 'string' && value[name] !== '';
    return types.isNativeError(value) || (Boolean(value) && text('name') && text('message') && text('stack'));
}

/** DEL is written out, as AWS does it. */
function escaped(text) {
    return typeof text === 'string' ? text.replaceAll('\x7F', '%7F') : text;
}

/** `text` as a header value: one line of printable ASCII. */
function headerText(text) {
    return text.slice(0, 256).replace(/[^ -~]/g, '?');
}

module.exports = {
    CallbackHandlerDeprecated: runtimeError('CallbackHandlerDeprecated'),
    HandlerNotFound: runtimeError('HandlerNotFound'),
    ImportModuleError: runtimeError('ImportModuleError'),
    InvalidStreamingOperation: runtimeError('InvalidStreamingOperation'),
    JSONStringifyError: runtimeError('JSONStringifyError'),
    MalformedHandlerName: runtimeError('MalformedHandlerName'),
    MalformedStreamingHandler: runtimeError('MalformedStreamingHandler'),
    PlatformError: runtimeError('PlatformError'),
    UnhandledPromiseRejection,
    UserCodeSyntaxError,
    asError,
    document,
    headerText,
    logged,
    xray,
};
