'use strict';
/**
 * `awslambda.InvokeStore`: values of the invocation being served. The npm package `@aws/lambda-invoke-store`, which AWS's
 * SDK and Powertools use, takes the one it finds here from Node.js 24 on.
 */

const KEYS = {
    REQUEST_ID: Symbol.for('_AWS_LAMBDA_REQUEST_ID'),
    X_RAY_TRACE_ID: Symbol.for('_AWS_LAMBDA_X_RAY_TRACE_ID'),
    TENANT_ID: Symbol.for('_AWS_LAMBDA_TENANT_ID'),
};

class InvokeStore {
    #values;

    getContext() {
        return this.#values;
    }

    hasContext() {
        return this.#values !== undefined;
    }

    get(key) {
        return this.#values?.[key];
    }

    set(key, value) {
        if (Object.values(KEYS).includes(key)) {
            throw new Error(`Cannot modify protected Lambda context field: ${String(key)}`);
        }
        this.#values = { ...this.#values, [key]: value };
    }

    run(values, inside) {
        this.#values = values;
        return inside();
    }

    getRequestId() {
        return this.get(KEYS.REQUEST_ID) ?? '-';
    }

    getXRayTraceId() {
        return this.get(KEYS.X_RAY_TRACE_ID);
    }

    getTenantId() {
        return this.get(KEYS.TENANT_ID);
    }
}

const store = new InvokeStore();

/** Runs `inside` with the values of an invocation in the store. */
function run({ id, trace, tenant }, inside) {
    return store.run({ [KEYS.REQUEST_ID]: id, [KEYS.X_RAY_TRACE_ID]: trace, [KEYS.TENANT_ID]: tenant }, inside);
}

module.exports = { run, store };
