'use strict';
/** The `context` argument of a handler. */

/** Adds to `context` what came with the invocation and what the environment says. */
function fill(context, headers) {
    const deadline = Number(headers['lambda-runtime-deadline-ms']);
    return Object.assign(context, {
        functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
        functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
        memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
        logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
        logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
        clientContext: parsed(headers['lambda-runtime-client-context'], 'ClientContext'),
        identity: parsed(headers['lambda-runtime-cognito-identity'], 'CognitoIdentity'),
        invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
        awsRequestId: headers['lambda-runtime-aws-request-id'],
        tenantId: headers['lambda-runtime-aws-tenant-id'],
        getRemainingTimeInMillis: () => deadline - Date.now(),
    });
}

function parsed(header, name) {
    if (!header) {
        return undefined;
    }
    try {
        return JSON.parse(header);
    } catch (error) {
        throw new Error(`Cannot parse ${name} as json: ${error}`);
    }
}

module.exports = { fill };
