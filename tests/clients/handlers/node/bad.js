// Handlers that do not.
class Odd extends Error {
    constructor(message) {
        super(message);
        this.name = 'Odd';
        this.code = 7;
        this.more = { a: [1] };
    }
}

exports.throws = async () => {
    throw new Odd('message é');
};

exports.throwsAtOnce = () => {
    throw new TypeError('first\nsecond');
};

exports.throwsAValue = async (event) => {
    throw [undefined, null, 'text', 7, { a: 1 }, Object.create(null)][event];
};

exports.throwsWithDelete = async () => {
    throw new Error('a\x7fb');
};

exports.throwsCause = async () => {
    throw new Error('outer', { cause: new Odd('inner') });
};

exports.cannotBeJson = async (event) => {
    const circular = {};
    circular.self = circular;
    return [circular, 1n][event];
};

exports.recurses = async () => {
    const again = () => again() + 1;
    return again();
};

exports.exits = async (event) => process.exit(event);

exports.kills = async (event) => {
    process.kill(process.pid, event);
    await new Promise((resolve) => setTimeout(resolve, 10000));
};

exports.neverSettles = () => new Promise(() => {});

exports.throwsLater = () =>
    new Promise(() => {
        setTimeout(() => {
            throw new Odd('later');
        }, 5);
    });

exports.rejectsAside = () =>
    new Promise(() => {
        Promise.reject(new Odd('aside'));
        setTimeout(() => {}, 10000);
    });

exports.notAFunction = 7;
