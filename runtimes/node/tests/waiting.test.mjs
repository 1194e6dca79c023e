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

test('nothing is left of what was rehearsed', async () => {
    const files = {
        'app.js': `const modules = Object.values(require.cache);
            exports.handler = async () => ({
                known: Object.keys(require.cache).filter((file) => file.includes('rehearsed')),
                children: modules.flatMap((one) => one.children).filter((one) => one.id.includes('rehearsed')).length,
                argv: process.argv.length, at: module.id });`,
    };
    await runtime({ files }, async ({ invoke }) => {
        const found = JSON.parse((await invoke(1)).body);
        assert.deepEqual(found, { known: [], children: 0, argv: 2, at: found.at });
        assert.ok(found.at.endsWith('app.js'));
    });
});

test('a function in an ES module is found in a process that has loaded one before', async () => {
    const files = { 'app.mjs': 'export const handler = async () => import.meta.url;' };
    await runtime({ files }, async ({ invoke }) => {
        assert.ok(JSON.parse((await invoke(1)).body).endsWith('/app.mjs'));
    });
});
