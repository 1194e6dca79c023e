'use strict';
// The handler of a rehearsal (rehearsal.cjs).
exports.handler = async () => null;
