// What test_sdk_js.py has AWS's SDK do: create, wait, invoke, publish, stream, delete. Prints what it saw.
import fs from 'node:fs';
import {
    CreateFunctionCommand,
    DeleteFunctionCommand,
    GetFunctionCommand,
    InvokeCommand,
    InvokeWithResponseStreamCommand,
    LambdaClient,
    PublishVersionCommand,
    UpdateFunctionCodeCommand,
    waitUntilFunctionActiveV2,
    waitUntilFunctionUpdatedV2,
} from '@aws-sdk/client-lambda';

const given = JSON.parse(fs.readFileSync(0, 'utf8'));
const client = new LambdaClient({ maxAttempts: 1 });
const FunctionName = given.name;
const waiting = { client, maxWaitTime: 60, minDelay: 1, maxDelay: 1 };

await client.send(
    new CreateFunctionCommand({
        FunctionName,
        Runtime: given.runtime,
        Role: 'arn:aws:iam::000000000000:role/lambda',
        Handler: 'app.handler',
        Code: { ZipFile: Buffer.from(given.code, 'base64') },
    }),
);
await waitUntilFunctionActiveV2(waiting, { FunctionName });
const created = (await client.send(new GetFunctionCommand({ FunctionName }))).Configuration.State;
const { Version } = await client.send(new PublishVersionCommand({ FunctionName }));
const invoked = await client.send(
    new InvokeCommand({ FunctionName, Qualifier: Version, Payload: JSON.stringify({ name: 'Ada' }) }),
);
const answer = JSON.parse(Buffer.from(invoked.Payload).toString());

await client.send(new UpdateFunctionCodeCommand({ FunctionName, ZipFile: Buffer.from(given.streaming, 'base64') }));
await waitUntilFunctionUpdatedV2(waiting, { FunctionName });
const streamed = await client.send(new InvokeWithResponseStreamCommand({ FunctionName }));
let stream = '';
let completed = false;
for await (const event of streamed.EventStream) {
    stream += Buffer.from(event.PayloadChunk?.Payload ?? '').toString();
    completed = event.InvokeComplete !== undefined && event.InvokeComplete.ErrorCode === undefined;
}

await client.send(new DeleteFunctionCommand({ FunctionName }));
const gone = await client.send(new InvokeCommand({ FunctionName })).catch((error) => error.name);
console.log(JSON.stringify({ created, answer, executed: invoked.ExecutedVersion, stream, completed, gone }));
