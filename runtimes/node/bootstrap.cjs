'use strict';
// Entry point of the Node.js runtime. Started as `node /var/runtime/node/bootstrap.cjs`; ../README.md lists the
// environment it expects. CommonJS, since the loader for ES modules costs milliseconds that handlers in CommonJS need
// not pay; they are loaded all the same.

const loop = require('./lambent/loop.cjs');

if (process.env._LAMBENT_ORDER_FD === undefined) {
    loop.main();
} else {
    require('./lambent/waiting.cjs').takeOrder(loop.legacy).then(loop.main);
}
