import assert from 'node:assert/strict';
import { test } from 'node:test';

import { runtime } from './fake.mjs';

const legacy = Number(process.versions.node.split('.')[0]) < 24;

test('events are answered one after another, over one connection', async () => {
    const sockets = new Set();
    const answer = (request) => {
        sockets.add(request.socket);
        return false;
    };
    await runtime({ files: { 'app.js': 'exports.handler = async (event) => event' }, answer }, async ({ invoke }) => {
        for (const event of [1, 'é', { deep: [null] }, 'x'.repeat(3_000_000)]) {
            const outcome = await invoke(event);
            assert.equal(outcome.kind, 'response');
            assert.deepEqual(JSON.parse(outcome.body), event);
        }
    });
    assert.equal(sockets.size, 1);
});

test('a kept connection that was closed is opened again', async () => {
    const answer = (request, response) => {
        response.setHeader('Connection', 'close');
        return false;
    };
    await runtime({ files: { 'app.js': 'exports.handler = async (event) => event' }, answer }, async ({ invoke }) => {
        assert.equal((await invoke(1)).body, '1');
        assert.equal((await invoke(2)).body, '2');
    });
});

test('a failure is reported with its type and cause, and the next event is served', async () => {
    const files = { 'app.js': "exports.handler = async (e) => { if (e) throw new RangeError('too é\\x7f'); return 1; }" };
    await runtime({ files }, async ({ invoke }) => {
        const outcome = await invoke(true);
        assert.equal(outcome.kind, 'error');
        assert.equal(outcome.headers['lambda-runtime-function-error-type'], 'RangeError');
        const document = JSON.parse(outcome.body);
        assert.deepEqual([document.errorType, document.errorMessage], ['RangeError', 'too é%7F']);
        assert.match(document.trace[1], /at .*handler.*app\.js:1:/);
        const cause = JSON.parse(outcome.headers['lambda-runtime-function-xray-error-cause']);
        assert.equal(cause.exceptions[0].message, 'too é\x7f');
        assert.match(cause.paths[0], /app\.js$/);
        assert.equal((await invoke(false)).body, '1');
    });
});

test('what is wrong with a handler is named', async () => {
    const cases = [
        ['handler', '', 'Runtime.MalformedHandlerName', /^Bad handler$/],
        ['../x.handler', '', 'Runtime.MalformedHandlerName', /is not a valid handler name/],
        ['nowhere.handler', '', 'Runtime.ImportModuleError', /Cannot find module 'nowhere'/],
        ['app.handler', '', 'Runtime.HandlerNotFound', /^app\.handler is undefined or not exported$/],
        ['app.handler', 'exports.handler = 1', 'Runtime.HandlerNotFound', /^app\.handler is not a function$/],
        ['app.handler', 'exports.', 'Runtime.UserCodeSyntaxError', /^SyntaxError: /],
        ['app.handler', "throw new TypeError('at once')", 'TypeError', /^at once$/],
    ];
    for (const [handler, code, type, message] of cases) {
        await runtime({ files: { 'app.js': code }, handler }, async ({ outcome }) => {
            const { kind, body } = await outcome();
            assert.equal(kind, 'init-error');
            const document = JSON.parse(body);
            assert.equal(document.errorType, type);
            assert.match(document.errorMessage, message);
            assert.deepEqual(await outcome(), { kind: 'exit', status: legacy ? 129 : 1 });
        });
    }
});

test('the context has what the headers say', async () => {
    const files = { 'app.js': 'exports.handler = async (e, c) => ({ ...c, left: c.getRemainingTimeInMillis() <= 30000 })' };
    const headers = {
        'Lambda-Runtime-Client-Context': '{"custom":{"a":1}}',
        'Lambda-Runtime-Cognito-Identity': '{"cognitoIdentityId":"me"}',
        'Lambda-Runtime-Invoked-Function-Arn': 'arn',
        'Lambda-Runtime-Aws-Tenant-Id': 'blue',
    };
    await runtime({ files, environment: { AWS_LAMBDA_FUNCTION_NAME: 'f' } }, async ({ invoke }) => {
        const context = JSON.parse((await invoke(1, headers)).body);
        assert.deepEqual(context.clientContext, { custom: { a: 1 } });
        assert.deepEqual(context.identity, { cognitoIdentityId: 'me' });
        const { functionName, awsRequestId, invokedFunctionArn, tenantId, left } = context;
        assert.deepEqual([functionName, awsRequestId, invokedFunctionArn, tenantId, left], ['f', 'request-1', 'arn', 'blue', true]);
        const broken = await invoke(1, { 'Lambda-Runtime-Client-Context': '{' });
        assert.match(JSON.parse(broken.body).errorMessage, /^Cannot parse ClientContext as json: SyntaxError/);
    });
});

test('an entry of several lines is one frame, and direct output stays outside', async () => {
    const code = "exports.handler = async () => { process.stdout.write('direct\\n'); console.warn('one\\ntwo'); }";
    const { stdout, frames } = await runtime({ files: { 'app.js': code } }, ({ invoke }) => invoke(1));
    assert.equal(stdout, 'direct\n');
    assert.equal(frames.length, 1);
    assert.equal(frames[0].type, 0xa55a0013);
    assert.match(frames[0].text, /^[-\d]+T[:.\d]+Z\trequest-1\tWARN\tone\ntwo\n$/);
});

test('entries below the level are left out, and JSON has its fields', async () => {
    const code = "exports.handler = async () => { console.log('low'); console.error('high', new Error('é')); }";
    const environment = { AWS_LAMBDA_LOG_FORMAT: 'JSON', AWS_LAMBDA_LOG_LEVEL: 'error' };
    const { frames } = await runtime({ files: { 'app.js': code }, environment }, ({ invoke }) => invoke(1));
    assert.deepEqual(
        frames.map((frame) => frame.type),
        [0xa55a0016],
    );
    const entry = JSON.parse(frames[0].text);
    assert.deepEqual([entry.level, entry.requestId, entry.errorType, entry.errorMessage], ['ERROR', 'request-1', 'Error', 'é']);
});

test('a stream is sent as it is written', async () => {
    const code = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
        const http = awslambda.HttpResponseStream.from(stream, { statusCode: 201 });
        http.write('a'); http.write(''); http.end('b');
    })`;
    await runtime({ files: { 'app.js': code } }, async ({ invoke }) => {
        for (const event of [1, 2]) {
            const { headers, body } = await invoke(event);
            assert.equal(headers['content-type'], 'application/vnd.awslambda.http-integration-response');
            assert.equal(headers['lambda-runtime-function-response-mode'], 'streaming');
            assert.equal(body, `{"statusCode":201}${'\0'.repeat(8)}ab`);
        }
    });
});

test('an HTTP stream that is ended without a write still says its status', async () => {
    const code = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
        awslambda.HttpResponseStream.from(stream, { statusCode: 204 }).end();
    })`;
    await runtime({ files: { 'app.js': code } }, async ({ invoke }) => {
        assert.equal((await invoke(1)).body, `{"statusCode":204}${'\0'.repeat(8)}`);
    });
});

test('a failure in the middle of a stream is in its trailers', async () => {
    const code = `exports.handler = awslambda.streamifyResponse(async (event, stream) => {
        stream.write('part');
        throw new RangeError('middle');
    })`;
    await runtime({ files: { 'app.js': code } }, async ({ invoke }) => {
        const { body, trailers } = await invoke(1);
        assert.equal(body, 'part');
        assert.equal(trailers['lambda-runtime-function-error-type'], 'RangeError');
        const document = JSON.parse(Buffer.from(trailers['lambda-runtime-function-error-body'], 'base64'));
        assert.equal(document.errorMessage, 'middle');
        assert.equal((await invoke(2)).body, 'part');
    });
});

test('callbacks are answered up to Node.js 22, and refused from 24 on', async () => {
    const code = `exports.handler = (event, context, callback) => {
        if (event === 'now') { context.callbackWaitsForEmptyEventLoop = false; setTimeout(() => {}, 600000); }
        else setTimeout(() => console.log('done'), 5);
        if (event !== 'never') callback(event === 'bad' ? 'why' : null, event);
    }`;
    const { frames } = await runtime({ files: { 'app.js': code } }, async ({ invoke, outcome }) => {
        if (!legacy) {
            const refused = await outcome();
            assert.equal(JSON.parse(refused.body).errorType, 'Runtime.CallbackHandlerDeprecated');
            return;
        }
        assert.equal((await invoke('waits')).body, '"waits"');
        assert.equal((await invoke('never')).body, 'null');
        assert.deepEqual(JSON.parse((await invoke('bad')).body), { errorType: 'string', errorMessage: 'why', trace: [] });
        assert.equal((await invoke('now')).body, '"now"');
    });
    if (legacy) {
        assert.match(frames[0].text, /request-1\tINFO\tdone/);
    }
});

test('an error that nobody catches is the invocation’s up to Node.js 22, and ends the process', async () => {
    const code = "exports.handler = () => new Promise(() => setTimeout(() => { throw new TypeError('late'); }, 1))";
    await runtime({ files: { 'app.js': code } }, async ({ invoke, outcome }) => {
        let end = await invoke(1);
        if (legacy) {
            assert.equal(JSON.parse(end.body).errorType, 'TypeError');
            end = await outcome();
        }
        assert.deepEqual(end, { kind: 'exit', status: legacy ? 129 : 1 });
    });
});
