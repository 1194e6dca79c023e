'use strict';
/** From the configured `dir/file.function` to a function, in CommonJS or as an ES module. */

const fs = require('node:fs');
const path = require('node:path');
const errors = require('./errors.cjs');

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');

/** Finds the handler `name` below `root`. What its module throws, syntax and import errors aside, is passed on. */
async function load(root, name) {
    if (name.includes('..')) {
        throw new errors.MalformedHandlerName(
            `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
        );
    }
    const file = path.basename(name);
    const folder = name.slice(0, name.indexOf(file));
    const dot = file.indexOf('.');
    if (dot < 0) {
        throw new errors.MalformedHandlerName('Bad handler');
    }
    const module_ = await loadModule(root, folder, file.slice(0, dot));
    const exported = file.slice(dot + 1);
    const handler = find(module_, exported) ?? find(module_?.default, exported);
    if (!handler) {
        throw new errors.HandlerNotFound(`${name} is undefined or not exported`);
    }
    if (typeof handler !== 'function') {
        throw new errors.HandlerNotFound(`${name} is not a function`);
    }
    return { handler, streaming: isStreaming(handler), highWaterMark: highWaterMark(handler) };
}

/** AWS has no callbacks from Node.js 24 on, and says so instead of waiting for one. */
function refuseCallbacks(loaded) {
    if (loaded.handler.length >= 3 && !loaded.streaming) {
        throw new errors.CallbackHandlerDeprecated(
            'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. ' +
                'You need to modify this function to use a supported handler signature to use Node.js 24 or later. ' +
                'For more information see https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.',
        );
    }
}

function find(module_, exported) {
    return exported.split('.').reduce((value, key) => value?.[key], module_);
}

async function loadModule(root, folder, name) {
    try {
        const file = path.resolve(root, folder, name);
        for (const extension of ['', '.js', '.mjs', '.cjs']) {
            if (fs.existsSync(file + extension)) {
                return await loadFile(file + extension);
            }
        }
        return require(require.resolve(name, { paths: [root, path.join(root, folder)] }));
    } catch (error) {
        if (error instanceof SyntaxError) {
            throw new errors.UserCodeSyntaxError(error);
        }
        if (error?.code === 'MODULE_NOT_FOUND') {
            throw new errors.ImportModuleError(String(error));
        }
        throw error;
    }
}

function loadFile(file) {
    return isEsModule(file) ? import(file) : require(file);
}

function isEsModule(file) {
    return file.endsWith('.mjs') || (file.endsWith('.js') && packageType(path.dirname(file)) === 'module');
}

/** The `type` of the nearest package.json, by Node's own rules. */
function packageType(folder) {
    for (let at = folder; !at.endsWith('/node_modules'); at = path.dirname(at)) {
        const file = path.join(at, 'package.json');
        if (fs.existsSync(file)) {
            try {
                return JSON.parse(fs.readFileSync(file, 'utf8')).type;
            } catch (error) {
                console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
                return undefined;
            }
        }
        if (at === path.dirname(at)) {
            return undefined;
        }
    }
    return undefined;
}

function isStreaming(handler) {
    const kind = handler[STREAMING];
    if (kind === undefined || kind === null || kind === false) {
        return false;
    }
    if (kind !== 'response') {
        throw new errors.MalformedStreamingHandler('Only response streaming is supported.');
    }
    return true;
}

function highWaterMark(handler) {
    const bytes = Number.parseInt(handler[HIGH_WATER_MARK], 10);
    return Number.isNaN(bytes) ? undefined : bytes;
}

module.exports = { HIGH_WATER_MARK, STREAMING, load, refuseCallbacks };
