// Handlers that answer with a stream.
import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';

const { streamifyResponse, HttpResponseStream } = awslambda;
const soon = () => new Promise((resolve) => setTimeout(resolve, 10));

export const writes = streamifyResponse(async (event, stream) => {
    stream.setContentType('text/plain');
    stream.write('one ');
    await soon();
    stream.write({ two: event });
    stream.write(Buffer.from([0xff]));
    stream.end('end');
});
export const ends = streamifyResponse(async (event, stream) => stream.end() && undefined);
export const pipes = streamifyResponse(async (event, stream) => {
    await pipeline(Readable.from(Array.from({ length: 300 }, (_, i) => `${i} `.repeat(1000))), stream);
});
export const http = streamifyResponse(async (event, stream) => {
    const response = HttpResponseStream.from(stream, { statusCode: 201, headers: { a: 'b' }, cookies: ['c=d'] });
    response.write('<p>');
    await soon();
    response.end('</p>');
});
export const failsBefore = streamifyResponse(async () => {
    throw new TypeError('before');
});
export const failsBetween = streamifyResponse(async (event, stream) => {
    stream.write('part');
    await soon();
    throw new RangeError('between');
});
export const failsAfter = streamifyResponse(async (event, stream) => {
    stream.end('all');
    await soon();
    throw new RangeError('after');
});
export const isNotAsync = streamifyResponse((event, stream) => stream.end('x') && 1);
export const returns = streamifyResponse(async (event, stream) => {
    stream.end('x');
    return 'ignored';
});
export const typeTooLate = streamifyResponse(async (event, stream) => {
    stream.write('x');
    stream.setContentType('text/html');
});
export const highWaterMark = streamifyResponse(async (event, stream) => stream.end(String(stream.writableHighWaterMark > 0)) && undefined, {
    highWaterMark: 1024,
});
