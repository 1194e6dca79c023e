'use strict';
// Entry point of the Node.js runtime. Started as `node /var/runtime/node/bootstrap.cjs`; ../README.md lists the
// environment it expects. CommonJS, since the loader for ES modules costs milliseconds that handlers in CommonJS need
// not pay; they are loaded all the same.

require('./lambent/loop.cjs').main();
