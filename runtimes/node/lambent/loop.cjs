'use strict';
/**
 * The life of the process: find the handler, then serve one invocation after another.
 *
 * It behaves as AWS's own client (npm `aws-lambda-ric`) does, which tests/clients/test_runtimes.py proves by running
 * both. From Node.js 24 on AWS has no callbacks any more, and an error that nobody catches simply ends the process;
 * before, it is reported as the invocation's. Whatever differs between the two is in `buffered.cjs` and in `legacy` here.
 *
 *     client     the Runtime API over one kept-alive connection
 *     handler    from `dir/file.function` to a function
 *     context    the `context` argument
 *     buffered   one invocation whose answer is a value
 *     streaming  one invocation whose answer is a stream
 *     errors     errors as the Runtime API and the logs show them
 *     logs       `console`, and the framed channel that keeps an entry of several lines one event
 *     idle       what to do when the event loop has nothing left
 *     store      `awslambda.InvokeStore`
 *     waiting    a process that is started before it is known which function it serves
 *     rehearsal  what such a process does once for nobody, so that it is quick when it is told
 */

const { Client } = require('./client.cjs');
const buffered = require('./buffered.cjs');
const errors = require('./errors.cjs');
const handlers = require('./handler.cjs');
const idle = require('./idle.cjs');
const logs = require('./logs.cjs');
const store = require('./store.cjs');
const streaming = require('./streaming.cjs');

// Exit statuses, up to Node.js 22.
const UNHANDLED = 128;
const UNCAUGHT = 129;

const legacy = Number(process.versions.node.split('.')[0]) < 24;

async function main() {
    logs.patchConsole(legacy ? undefined : '-');
    const client = new Client(process.env.AWS_LAMBDA_RUNTIME_API);
    if (legacy) {
        reportUncaught(client);
        idle.listen();
    }
    streaming.setGlobals(legacy ? {} : { InvokeStore: store.store });
    let loaded;
    try {
        loaded = await handlers.load(process.env.LAMBDA_TASK_ROOT || '/var/task', process.env._HANDLER || '');
        if (!legacy) {
            handlers.refuseCallbacks(loaded);
        }
    } catch (error) {
        // The label is AWS's, which people search their logs for.
        logs.error(legacy ? 'Uncaught Exception' : 'Init Error', error);
        await client.failInit(error);
        process.exit(legacy ? UNCAUGHT : 1);
    }
    await serve(client, loaded);
}

async function serve(client, loaded) {
    const one = loaded.streaming ? streaming.serve : buffered.serve;
    for (;;) {
        const invocation = await client.next();
        const { headers } = invocation;
        const id = headers['lambda-runtime-aws-request-id'];
        const tenant = headers['lambda-runtime-aws-tenant-id'];
        const trace = headers['lambda-runtime-trace-id'];
        logs.setInvocation(id, tenant);
        setTrace(trace);
        current = { id, fail: (error) => client.fail(id, error) };
        const serveIt = () => one({ client, loaded, invocation, id, legacy, current });
        await store.run({ id, trace, tenant }, serveIt);
        current = undefined;
    }
}

function setTrace(trace) {
    if (trace) {
        process.env._X_AMZN_TRACE_ID = trace;
    } else {
        delete process.env._X_AMZN_TRACE_ID;
    }
}

/** The invocation being served, whose `fail` reports an error as its outcome. */
let current;

/** Makes errors that nobody catches the outcome of the invocation, or of the initialisation. They end the process. */
function reportUncaught(client) {
    const report = async (label, error, status) => {
        logs.error(label, error);
        try {
            await (current ? current.fail(error) : client.failInit(error));
        } finally {
            process.exit(status);
        }
    };
    process.on('uncaughtException', (error) => report('Uncaught Exception', error, UNCAUGHT));
    process.on('unhandledRejection', (reason, promise) => {
        report('Unhandled Promise Rejection', new errors.UnhandledPromiseRejection(reason, promise), UNHANDLED);
    });
}

module.exports = { legacy, main };
