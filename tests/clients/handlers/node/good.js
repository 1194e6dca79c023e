// Handlers that answer.
const path = require('node:path');

class Point {
    constructor() {
        this.x = 1;
    }

    toJSON() {
        return { point: this.x };
    }
}

exports.echo = async (event) => event;

exports.values = async (event) =>
    [
        undefined,
        null,
        '',
        'é€😀\u2028\x7f\x00"\\/',
        1.5,
        -0,
        NaN,
        [undefined, NaN],
        { a: undefined, b: new Date(0), c: new Map([[1, 2]]), d: Symbol('x') },
        new Point(),
        Buffer.from('bytes'),
        new Error('as a value'),
        [() => 1],
        2 ** 70,
        Promise.resolve('nested'),
    ][event];

exports.synchronous = (event) => ({ event });

exports.answersMuch = async (event) => 'x'.repeat(event);

let calls = 0;
exports.counts = async () => {
    calls += 1;
    return calls;
};

exports.showsContext = async (_event, context) => {
    const { getRemainingTimeInMillis, ...rest } = context;
    const remaining = getRemainingTimeInMillis();
    return {
        rest: Object.fromEntries(Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1))),
        remaining: remaining > 0 && remaining <= 30000,
        trace: process.env._X_AMZN_TRACE_ID,
        functions: Object.keys(context).filter((name) => typeof context[name] === 'function'),
    };
};

exports.showsEnvironment = async () => ({
    cwd: path.basename(process.cwd()),
    telemetry: '_LAMBDA_TELEMETRY_LOG_FD' in process.env,
    globals: Object.keys(globalThis.awslambda).sort(),
    main: require.main === module,
});

exports.store = async () => {
    const store = globalThis.awslambda.InvokeStore;
    store.set('mine', 1);
    let refused;
    try {
        store.set(Symbol.for('_AWS_LAMBDA_REQUEST_ID'), 'x');
    } catch (error) {
        refused = error.message;
    }
    return [store.getRequestId(), store.getXRayTraceId(), store.hasContext(), store.get('mine'), refused];
};

exports.prints = async () => {
    process.stdout.write('to stdout\n');
    process.stderr.write('to stderr\n');
};

exports.logs = async () => {
    for (const method of ['trace', 'debug', 'info', 'log', 'warn', 'error', 'fatal']) {
        console[method](`${method}\nsecond line é`);
    }
    console.log();
    console.log('%s is %d', 'format', 1, { more: [1] });
    console.log({ an: 'object', nested: { a: { b: { c: 1 } } } });
    console.log('with', new TypeError('an error'), 'between');
    console.log({ n: 1n });
    const error = new RangeError('own');
    error.code = 'E1';
    error.more = { a: 1 };
    console.error(error);
    console.warn(undefined);
    const circular = {};
    circular.self = circular;
    console.info(circular);
};
