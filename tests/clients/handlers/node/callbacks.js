// Handlers of the older kind, up to Node.js 22.
exports.answers = (event, _context, callback) => callback(null, { event });
exports.fails = (event, _context, callback) => callback([new Error('e'), 'text', { a: 1 }][event]);
exports.answersTwice = (_event, _context, callback) => {
    callback(null, 1);
    callback(null, 2);
};
exports.waits = (_event, _context, callback) => {
    setTimeout(() => console.log('after'), 20);
    callback(null, 'before');
};
exports.doesNotWait = (_event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    setTimeout(() => {}, 600000);
    callback(null, context.callbackWaitsForEmptyEventLoop);
};
exports.answersLater = (_event, _context, callback) => {
    setTimeout(() => callback(null, 'later'), 5);
};
exports.saysNothing = () => {};
exports.returnsAValue = () => 'ignored';
exports.succeeds = (_event, context) => context.succeed('done');
exports.done = (event, context) => context.done(event ? 'bad' : null, 'good');
exports.failsWithNothing = (_event, context) => context.fail();
exports.cannotBeJson = (_event, _context, callback) => callback(null, { n: 1n });
exports.throws = (_event, _context, _callback) => {
    throw new Error('thrown');
};
