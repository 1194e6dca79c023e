// All the same of a runtime that waits for its order, and what is its own.
import assert from 'node:assert/strict';
import { test } from 'node:test';

process.env.LAMBENT_TEST_WAITS = '1';
const { runtime } = await import('./fake.mjs');
await import('./runtime.test.mjs');

test('what was ordered is all that is found', async () => {
    const files = {
        'app.js': `exports.handler = async () => ({
            names: Object.keys(process.env), cwd: process.cwd(), hour: new Date(0).getHours(), found: require('far') });`,
        'elsewhere/far/index.js': 'exports.away = true;',
    };
    const environment = { TZ: 'Asia/Tokyo', NODE_PATH: 'elsewhere', MINE: 'grüß' };
    await runtime({ files, environment }, async ({ invoke }) => {
        const { names, cwd, hour, found } = JSON.parse((await invoke(1)).body);
        assert.ok(names.includes('MINE') && !names.includes('STALE'));
        assert.ok(names.every((name) => name === '_HANDLER' || !name.startsWith('_')));
        assert.notEqual(cwd, '/');
        assert.equal(hour, 9);
        assert.deepEqual(found, { away: true });
    });
});
